// spawn_many: start 500 000 goroutines that do nothing, then wait for all of them; as b_spawn_many.c.
package main

import (
	"sync"
	"time"
)

const goroutines = 500_000

func main() {
	b := &bench{question: "spawn_many", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		var done sync.WaitGroup
		start := time.Now()
		done.Add(goroutines)
		for i := 0; i < goroutines; i++ {
			go done.Done()
		}
		done.Wait()
		return []float64{float64(time.Since(start).Nanoseconds()) / goroutines}
	}
	b.main()
}
