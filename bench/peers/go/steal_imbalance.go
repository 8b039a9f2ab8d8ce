// steal_imbalance: bursts of 180 goroutines of 1 to 10 us, all started by one; as b_steal_imbalance.c. Go does not say
// how often its Ps steal.
package main

import (
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const (
	goroutines       = 180
	bursts           = 1_000
	burstsAfterSleep = 250
	loops            = 200
)

var stepsPerUs float64

func compute(steps int) uint64 {
	x := uint64(88172645463325252)
	for ; steps > 0; steps-- {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

func computePart(i int) uint64 { return compute(int(float64(1+i*7%10) * stepsPerUs)) }

// calibrate takes the fastest of several turns: others have disturbed the rest.
func calibrate() float64 {
	const steps = 100_000
	least := time.Duration(math.MaxInt64)
	for i := 0; i < 20; i++ {
		start := time.Now()
		if compute(steps) == 0 {
			die("xorshift never gives 0")
		}
		if took := time.Since(start); took < least {
			least = took
		}
	}
	return steps * 1e3 / float64(least.Nanoseconds())
}

// measure runs f, which must return `sum`, count times; returns how long each took, in ns and in order.
func measure(count int, sum uint64, pause time.Duration, f func() uint64) []float64 {
	var times []float64
	for i := 0; i < count; i++ {
		if pause > 0 {
			time.Sleep(pause)
		}
		start := time.Now()
		if f() != sum {
			die("sum: it is wrong")
		}
		times = append(times, float64(time.Since(start).Nanoseconds()))
	}
	sort.Float64s(times)
	return times
}

func loop() uint64 {
	sum := uint64(0)
	for i := 0; i < goroutines; i++ {
		sum += computePart(i)
	}
	return sum
}

func burst() uint64 {
	var sum uint64
	var left sync.WaitGroup
	left.Add(goroutines)
	for i := 0; i < goroutines; i++ {
		i := i
		go func() {
			atomic.AddUint64(&sum, computePart(i))
			left.Done()
		}()
	}
	left.Wait()
	return sum
}

func main() {
	b := &bench{question: "steal_imbalance", metrics: []metric{{"", "x ideal"}, {"p99", "x ideal"},
		{"after sleep", "x ideal"}}}
	b.run = func(b *bench) []float64 {
		if stepsPerUs == 0 {
			stepsPerUs = calibrate()
		}
		sum := loop()
		ideal := measure(b.count(loops), sum, 0, loop)[0] / float64(b.workers)
		times := measure(b.count(bursts), sum, 0, burst)
		rested := measure(b.count(burstsAfterSleep), sum, 2*time.Millisecond, burst)
		return []float64{percentile(times, 50) / ideal, percentile(times, 99) / ideal, percentile(rested, 50) / ideal}
	}
	b.main()
}
