// deadlock.go: all goroutines are asleep. The report, on stderr, names each goroutine and what it waits for.
package main

import (
	"fmt"
	"sync"
)

func main() {
	var group sync.WaitGroup
	c := make(chan int)
	fmt.Println("nobody will ever send")
	group.Add(1)
	go func() {
		defer group.Done()
		<-c
	}()
	group.Wait()
}
