// wake_latency: how long it takes from waking a goroutine that waits until it runs beside its waker; as
// b_wake_latency.c. Goroutines cannot be put on a P, and locking them to threads makes each wake dearer. So there is
// one way to do it: the waker computes on, for 1 ms at most, and another P has to take the goroutine from it. That is
// the main figure and "free" alike.
package main

import (
	"math"
	"runtime"
	"sort"
	"sync/atomic"
	"time"
)

const (
	sleepingWakes = 2_000
	spinningWakes = 20_000
	calm          = 2 * time.Millisecond
	busy          = time.Millisecond
)

func wake(n int, isSpinning bool) []float64 {
	gate, us := make(chan time.Time), make([]float64, 0, n)
	var done int64
	ended := make(chan struct{})
	go func() {
		for i := 1; i <= n; i++ {
			us = append(us, float64(time.Since(<-gate).Nanoseconds())/1e3)
			atomic.StoreInt64(&done, int64(i))
		}
		close(ended)
	}()
	for i := 1; i <= n; i++ {
		if isSpinning {
			for start, pause := time.Now(), time.Duration(2+i*7%9)*time.Microsecond; time.Since(start) < pause; {
			}
		} else {
			time.Sleep(calm)
		}
		sent := time.Now()
		gate <- sent
		for atomic.LoadInt64(&done) < int64(i) {
			if time.Since(sent) > busy {
				runtime.Gosched()
			}
		}
	}
	<-ended
	check("wakes", len(us), n)
	sort.Float64s(us)
	return us
}

func main() {
	b := &bench{question: "wake_latency", metrics: []metric{{"", "us"}, {"p90", "us"}, {"p99", "us"}, {"p99.9", "us"},
		{"max", "us"}, {"spinning", "us"}, {"spinning p90", "us"}, {"spinning p99", "us"}, {"spinning p99.9", "us"},
		{"free", "us"}, {"free p99", "us"}}}
	b.run = func(b *bench) []float64 {
		var values []float64
		if b.workers == 1 {
			for range b.metrics {
				values = append(values, math.NaN())
			}
			return values
		}
		sleeping, spinning := wake(b.count(sleepingWakes), false), wake(b.count(spinningWakes), true)
		b.times = append(b.times, sleeping...)
		for _, percent := range []float64{50, 90, 99, 99.9, 100} {
			values = append(values, percentile(sleeping, percent))
		}
		for _, percent := range []float64{50, 90, 99, 99.9} {
			values = append(values, percentile(spinning, percent))
		}
		return append(values, percentile(sleeping, 50), percentile(sleeping, 99))
	}
	b.main()
}
