// timers.go: Sleep, After, NewTicker, AfterFunc with Stop and Reset.
package main

import (
	"fmt"
	"time"
)

func main() {
	start := time.Now()
	time.Sleep(5 * time.Millisecond)
	fmt.Println("slept 5 ms:", time.Since(start) >= 5*time.Millisecond)

	at := <-time.After(5 * time.Millisecond)
	fmt.Println("after 5 ms:", at.Sub(start) >= 10*time.Millisecond)

	ticker := time.NewTicker(2 * time.Millisecond)
	for i := 1; i <= 3; i++ {
		<-ticker.C
		fmt.Println("tick", i)
	}
	ticker.Stop()

	fired := make(chan struct{})
	timer := time.AfterFunc(time.Hour, func() { close(fired) })
	fmt.Println("stop:", timer.Stop())
	fmt.Println("stop again:", timer.Stop())
	fmt.Println("reset:", timer.Reset(time.Hour))
	fmt.Println("reset again:", timer.Reset(time.Millisecond))
	<-fired
	fmt.Println("stop when it has fired:", timer.Stop())
}
