// wake_1m: a million goroutines that wait, each on a channel of its own, are woken one by one and wait again; as
// b_wake_1m.c.
package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	goroutines = 1_000_000
	rounds     = 3
	batch      = 1_000
)

func main() {
	b := &bench{question: "wake_1m", metrics: []metric{{"", "ns"}}, isFresh: true}
	b.run = func(b *bench) []float64 {
		count := b.count(goroutines)
		gates, woken := make([]chan struct{}, count), make([]int32, count)
		var seated int64
		var ended sync.WaitGroup
		ended.Add(count)
		for i := range gates {
			i := i
			gates[i] = make(chan struct{})
			go func() {
				for {
					atomic.AddInt64(&seated, 1)
					<-gates[i]
					if woken[i]++; woken[i] > rounds {
						ended.Done()
						return
					}
				}
			}()
		}
		await := func(total int) {
			for atomic.LoadInt64(&seated) < int64(total) {
				runtime.Gosched()
			}
		}
		wakeAll := func() {
			for i, gate := range gates {
				gate <- struct{}{}
				if i%batch == 0 {
					runtime.Gosched()
				}
			}
		}
		await(count)
		start := time.Now()
		for round := 1; round <= rounds; round++ {
			wakeAll()
			await((round + 1) * count)
		}
		value := float64(time.Since(start).Nanoseconds()) / rounds / float64(count)
		wakeAll()
		ended.Wait()
		for _, n := range woken {
			check("rounds", int(n), rounds+1)
		}
		return []float64{value}
	}
	b.main()
}
