// timer_storm: 10^6 functions by time.AfterFunc, all of which come within a second; as b_timer_storm.c. Nobody destroys
// a timer here: the collector's work is in the CPU time as far as it has been done by then.
package main

import (
	"math/rand"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	timers = 1_000_000
	lead   = 2 * time.Microsecond // per timer, until the first comes
	rate   = time.Microsecond     // one timer in so much time, on average
)

func cpu() time.Duration {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// storm returns the CPU time in ns per timer, and how late each was, in us and in order.
func storm(count int) (float64, []float64) {
	us, comes := make([]float64, count), make([]int32, count)
	var come sync.WaitGroup
	come.Add(count)
	before := cpu()
	begins := time.Now().Add(time.Duration(count) * lead)
	for i := 0; i < count; i++ {
		i, due := i, begins.Add(time.Duration(rand.Int63n(int64(count)*int64(rate))))
		time.AfterFunc(time.Until(due), func() {
			us[i] = float64(time.Since(due).Nanoseconds()) / 1e3
			atomic.AddInt32(&comes[i], 1)
			come.Done()
		})
	}
	if time.Now().After(begins) {
		die("the machine is too busy: the first timers came before all were started")
	}
	come.Wait()
	used := float64((cpu() - before).Nanoseconds()) / float64(count)
	for i := range comes {
		check("how often a timer has come", int(comes[i]), 1)
	}
	sort.Float64s(us)
	if us[0] < 0 {
		die("a timer has come too early")
	}
	return used, us
}

func startAndStop(count int) float64 {
	all, order, stopped := make([]*time.Timer, count), rand.Perm(count), 0
	start := time.Now()
	for i := range all {
		all[i] = time.AfterFunc(time.Hour+time.Duration(rand.Int63n(int64(time.Hour))), func() {})
	}
	for _, i := range order {
		if all[i].Stop() {
			stopped++
		}
	}
	took := time.Since(start)
	check("timers stopped in time", stopped, count)
	return float64(took.Nanoseconds()) / float64(count)
}

func main() {
	b := &bench{question: "timer_storm", isFresh: true, metrics: []metric{{"", "ns"}, {"late", "us"}, {"late p99", "us"},
		{"late max", "us"}, {"cancel", "ns"}}}
	b.run = func(b *bench) []float64 {
		count := b.count(timers)
		used, us := storm(count)
		return []float64{used, percentile(us, 50), percentile(us, 99), us[len(us)-1], startAndStop(count)}
	}
	b.main()
}
