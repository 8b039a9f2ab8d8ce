// workers.go: a pool of workers that take jobs from a channel and send results to another.
package main

import (
	"fmt"
	"sync"
	"time"
)

const (
	workers = 3
	jobs    = 12
)

type result struct{ job, value int }

func work(jobs <-chan int, results chan<- result) {
	for job := range jobs {
		time.Sleep(time.Duration(job%4) * 100 * time.Microsecond)
		results <- result{job, job * job}
	}
}

// Closes the results when nobody sends any more.
func runPool(jobs <-chan int, results chan<- result) {
	var group sync.WaitGroup
	for i := 0; i < workers; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			work(jobs, results)
		}()
	}
	group.Wait()
	close(results)
}

func main() {
	in, out := make(chan int, jobs), make(chan result)
	go runPool(in, out)
	for i := 0; i < jobs; i++ {
		in <- i
	}
	close(in)
	var values [jobs]int
	for result := range out {
		values[result.job] = result.value
	}
	for i, value := range values {
		fmt.Printf("job %d: %d\n", i, value)
	}
}
