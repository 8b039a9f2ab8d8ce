// goroutines.go: the go statement, WaitGroup, GOMAXPROCS, NumGoroutine and Gosched.
package main

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

func main() {
	runtime.GOMAXPROCS(2)
	fmt.Println("processors:", runtime.GOMAXPROCS(0))

	var squares [5]int
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := 0; i < 5; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			<-start
			squares[i] = i * i
		}(i)
	}
	fmt.Println("running:", runtime.NumGoroutine())
	close(start)
	group.Wait()
	fmt.Print("squares:")
	for _, square := range squares {
		fmt.Print(" ", square)
	}
	fmt.Println()

	var flag atomic.Bool
	go flag.Store(true)
	for !flag.Load() {
		runtime.Gosched()
	}
	fmt.Println("the flag is set")
}
