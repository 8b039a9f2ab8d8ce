// spawn_join: start one goroutine, wait until it has ended; as b_spawn_join.c.
// By a channel: a WaitGroup is slower here.
package main

import "time"

const pairs = 2_000_000

func main() {
	b := &bench{question: "spawn_join", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		n := b.count(pairs)
		done := make(chan struct{})
		start := time.Now()
		for i := 0; i < n; i++ {
			go func() { done <- struct{}{} }()
			<-done
		}
		return []float64{float64(time.Since(start).Nanoseconds()) / float64(n)}
	}
	b.main()
}
