// mem_queued: resident memory per goroutine that was started and has not run; as b_mem_queued.c. Go preempts the one
// that starts them, so some do run: those wait then.
package main

import (
	"sync"
	"time"
)

const goroutines = 1_000_000

func main() {
	b := &bench{question: "mem_queued", metrics: []metric{{"", "B"}, {"time", "s"}}, isFresh: true}
	b.run = func(b *bench) []float64 {
		parkCrowd(1).release()
		gate := make(chan struct{})
		var ended sync.WaitGroup
		ended.Add(goroutines)
		rss, start := rssBytes(), time.Now()
		for i := 0; i < goroutines; i++ {
			go func() {
				<-gate
				ended.Done()
			}()
		}
		seconds := time.Since(start).Seconds()
		values := []float64{(rssBytes() - rss) / goroutines, seconds}
		close(gate)
		ended.Wait()
		return values
	}
	b.main()
}
