// chan_pingpong: a value goes to another goroutine and comes back, over two unbuffered channels; as b_chan_pingpong.c
// and, without "across", b_csp_pingpong.c. For "across" both goroutines are locked to a thread each: Go knows no other
// way to keep them apart.
package main

import (
	"math"
	"runtime"
	"time"
)

const (
	roundTrips       = 2_000_000
	roundTripsAcross = 20_000
)

func play(n int, isAcross bool) float64 {
	ping, pong, elapsed := make(chan int), make(chan int), make(chan time.Duration)
	lock := func() {
		if isAcross {
			runtime.LockOSThread() // until the goroutine ends
		}
	}
	go func() {
		lock()
		for i := 0; i < n; i++ {
			pong <- <-ping + 1
		}
	}()
	go func() {
		lock()
		sum := 0
		start := time.Now()
		for i := 0; i < n; i++ {
			ping <- i
			sum += <-pong
		}
		elapsed <- time.Since(start)
		check("sum", sum, n*(n+1)/2)
	}()
	return float64((<-elapsed).Nanoseconds()) / float64(n)
}

func main() {
	b := &bench{question: "chan_pingpong", metrics: []metric{{"", "ns"}, {"across", "ns"}}}
	b.run = func(b *bench) []float64 {
		values := []float64{play(b.count(roundTrips), false), math.NaN()}
		if b.workers > 1 && len(b.metrics) > 1 {
			values[1] = play(b.count(roundTripsAcross), true)
		}
		return values
	}
	b.main()
}
