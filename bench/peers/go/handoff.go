// handoff: how soon others go on when a goroutine blocks its thread in nanosleep(2); as b_handoff.c.
package main

import (
	"math"
	"math/rand"
	"runtime"
	"sort"
	"syscall"
	"time"
)

const (
	rounds   = 100
	blocked  = 10 * time.Millisecond
	busy     = 10 * time.Millisecond
	pauseMax = 2 * time.Millisecond
)

func blockOnce() float64 {
	wentOn := make(chan time.Time, 1)
	go func() { wentOn <- time.Now() }()
	start := time.Now()
	wait := syscall.NsecToTimespec(blocked.Nanoseconds())
	syscall.Nanosleep(&wait, nil)
	return float64((<-wentOn).Sub(start).Nanoseconds()) / 1e6
}

// measure returns the median and the 99th percentile, in ms.
func measure(n int, isIdle bool) []float64 {
	var ms []float64
	for i := 0; i < n; i++ {
		pause := time.Duration(rand.Intn(int(pauseMax)))
		if isIdle {
			time.Sleep(pause)
		} else {
			for start := time.Now(); time.Since(start) < busy+pause; {
				runtime.Gosched()
			}
		}
		ms = append(ms, blockOnce())
	}
	sort.Float64s(ms)
	return []float64{ms[n/2], ms[n*99/100]}
}

func main() {
	b := &bench{question: "handoff", metrics: []metric{{"", "ms"}, {"p99", "ms"}, {"idle", "ms"}, {"idle p99", "ms"}}}
	b.run = func(b *bench) []float64 {
		if b.workers > 1 {
			return []float64{math.NaN(), math.NaN(), math.NaN(), math.NaN()}
		}
		return append(measure(b.count(rounds), false), measure(b.count(rounds), true)...)
	}
	b.main()
}
