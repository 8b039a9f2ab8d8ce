// timer_cancel: Reset and Stop of a timer that never fires, on every worker at once, with 1 000 other timers armed per
// worker. Go's timers stand by themselves, so this is measured directly where b_timer_cancel.c takes a difference.
package main

import (
	"sync"
	"time"
)

const (
	pairsPerWorker  = 1_000_000
	othersPerWorker = 1_000
)

func main() {
	b := &bench{question: "timer_cancel", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		var others []*time.Timer
		for i := 0; i < othersPerWorker*b.workers; i++ {
			others = append(others, time.NewTimer(time.Hour))
		}
		n := b.count(pairsPerWorker)
		var done sync.WaitGroup
		done.Add(b.workers)
		start := time.Now()
		for w := 0; w < b.workers; w++ {
			go func() {
				timer := time.NewTimer(time.Hour)
				timer.Stop()
				for i := 0; i < n; i++ {
					spread := time.Duration(uint64(i)*2654435761%65536) * time.Millisecond
					timer.Reset(time.Second + spread)
					timer.Stop()
				}
				done.Done()
			}()
		}
		done.Wait()
		value := float64(time.Since(start).Nanoseconds()) / float64(n)
		for _, timer := range others {
			timer.Stop()
		}
		return []float64{value}
	}
	b.main()
}
