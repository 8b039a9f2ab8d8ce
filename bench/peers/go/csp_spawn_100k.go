// csp_spawn_100k: start 100 000 goroutines that only tell a wait group that they have ended, and wait for all; as
// b_csp_spawn_100k.c. There is no "outside": Go's main is a goroutine.
package main

import (
	"sync"
	"time"
)

const (
	goroutines = 100_000
	rounds     = 20 // of a run
)

func main() {
	b := &bench{question: "csp_spawn_100k", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		n := b.count(rounds)
		var elapsed time.Duration
		for round := 0; round < n; round++ {
			var ended sync.WaitGroup
			start := time.Now()
			ended.Add(goroutines)
			for i := 0; i < goroutines; i++ {
				go func() { ended.Done() }()
			}
			ended.Wait()
			elapsed += time.Since(start)
		}
		return []float64{float64(elapsed.Nanoseconds()) / float64(n*goroutines)}
	}
	b.main()
}
