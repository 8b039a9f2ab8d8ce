// select.go: default, a timeout, several receives, nil channels, a send beside a receive.
package main

import (
	"fmt"
	"time"
)

func count(out chan<- int, from, to int) {
	for i := from; i <= to; i++ {
		out <- i
	}
	close(out)
}

// Adds up two channels until both are closed. One that is closed becomes nil: its case is never ready again.
func addUp(a, b <-chan int) int {
	sum := 0
	for a != nil || b != nil {
		select {
		case v, ok := <-a:
			if !ok {
				a = nil
			} else {
				sum += v
			}
		case w, ok := <-b:
			if !ok {
				b = nil
			} else {
				sum += w
			}
		}
	}
	return sum
}

func takeFive(in <-chan int, quit chan<- struct{}) {
	for i := 0; i < 5; i++ {
		fmt.Println("took", <-in)
	}
	close(quit)
}

// Sends powers of two until told to quit.
func doubleUp(out chan<- int, quit <-chan struct{}) {
	for x := 1; ; x *= 2 {
		select {
		case out <- x:
		case <-quit:
			fmt.Println("quit")
			return
		}
	}
}

func main() {
	values, quit := make(chan int), make(chan struct{})
	select {
	case <-values:
	default:
		fmt.Println("nothing yet")
	}
	select {
	case <-values:
	case <-time.After(5 * time.Millisecond):
		fmt.Println("timed out")
	}

	a, b := make(chan int), make(chan int)
	go count(a, 1, 10)
	go count(b, 100, 110)
	fmt.Println("the sum is", addUp(a, b))

	go takeFive(values, quit)
	doubleUp(values, quit)
}
