// go_v_c_example.go: a pool of workers that ends when it is cancelled or has no more jobs.
package main

import (
	"context"
	"fmt"
	"sync"
)

const (
	workers = 3
	jobs    = 9
)

func worker(ctx context.Context, id int, jobs <-chan int, results chan<- int, wg *sync.WaitGroup) {
	defer wg.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case job, ok := <-jobs:
			if !ok {
				return
			}
			results <- job * 2
		}
	}
}

func start(ctx context.Context, in <-chan int, out chan<- int, wg *sync.WaitGroup) {
	wg.Add(workers)
	for id := 0; id < workers; id++ {
		go worker(ctx, id, in, out, wg)
	}
}

// All jobs are done, and then there are no more. Who is first depends on the scheduler; what comes out does not.
func untilClosed() {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in, out := make(chan int, jobs), make(chan int, jobs)
	var results [jobs + 1]int
	sum := 0
	start(ctx, in, out, &wg)
	for job := 1; job <= jobs; job++ {
		in <- job
	}
	close(in)
	wg.Wait()
	close(out)
	for result := range out {
		results[result/2] = result
	}
	for job := 1; job <= jobs; job++ {
		fmt.Printf("job %d: %d\n", job, results[job])
		sum += results[job]
	}
	fmt.Printf("closed: the sum of %d results is %d\n", jobs, sum)
}

// The jobs never end; the cancellation ends the workers.
func untilCancelled() {
	var wg sync.WaitGroup
	parent, cancel := context.WithCancel(context.Background())
	ctx, cancelChild := context.WithCancel(parent)
	defer cancelChild()
	in, out := make(chan int), make(chan int, 1)
	start(ctx, in, out, &wg)
	in <- 21
	fmt.Printf("a job: %d\n", <-out)
	cancel()
	wg.Wait()
	fmt.Printf("cancelled: %d workers have ended\n", workers)
}

func main() {
	untilClosed()
	untilCancelled()
}
