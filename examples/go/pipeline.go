// pipeline.go: stages joined by channels, fanned out and merged, and stopped from the far end.
package main

import (
	"context"
	"fmt"
	"sync"
)

const squarers = 3

// 1, 2, 3 ... for ever, or until the context is cancelled.
func generate(ctx context.Context, out chan<- int) {
	for i := 1; ; i++ {
		select {
		case out <- i:
		case <-ctx.Done():
			return
		}
	}
}

func square(ctx context.Context, in <-chan int, out chan<- int) {
	for {
		select {
		case v := <-in:
			select {
			case out <- v * v:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Several goroutines write to one channel: that is all that merging takes.
func main() {
	ctx, cancel := context.WithCancel(context.Background())
	source, squares := make(chan int), make(chan int, 8)
	var group sync.WaitGroup
	start := func(f func()) {
		group.Add(1)
		go func() {
			defer group.Done()
			f()
		}()
	}
	start(func() { generate(ctx, source) })
	for i := 0; i < squarers; i++ {
		start(func() { square(ctx, source, squares) })
	}
	odd, even := 0, 0
	var seen [11]bool
	for odd+even < 10 {
		v := <-squares
		for i := 1; i <= 10; i++ {
			if v != i*i || seen[i] {
				continue
			}
			seen[i] = true
			if i%2 != 0 {
				odd++
			} else {
				even++
			}
		}
	}
	cancel() // whoever waits for a receiver, or for a number, is let go
	group.Wait()
	fmt.Printf("of the first ten squares %d are odd and %d even\n", odd, even)
	fmt.Println("all stages have ended")
}
