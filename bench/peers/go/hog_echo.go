// hog_echo: 1000 goroutines that compute without end beside 1000 that do little, on 2 workers; as b_hog_echo.c.
package main

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	hogs   = 1000
	pairs  = 500
	rounds = 200
	period = 100 * time.Millisecond
	lead   = 100 * time.Millisecond
)

var begun, isOver int32

type hog struct {
	laps, lapsBefore int64
	gap              [112]byte // so that no two are in a pair of cache lines
}

func (h *hog) compute() {
	sum := 0
	atomic.AddInt32(&begun, 1)
	for laps := 1; atomic.LoadInt32(&isOver) == 0; laps++ {
		for i := 0; i < 1000; i++ {
			sum += i
		}
		atomic.StoreInt64(&h.laps, int64(laps))
		check("sum", sum, laps*499500)
	}
}

func unfairness(all []hog) float64 {
	sum, squares := 0.0, 0.0
	for i := range all {
		laps := float64(atomic.LoadInt64(&all[i].laps) - all[i].lapsBefore)
		sum += laps
		squares += laps * laps
	}
	return 1 - sum*sum/(hogs*squares)
}

func run(b *bench) []float64 {
	if b.workers != 2 {
		return []float64{math.NaN(), math.NaN(), math.NaN()}
	}
	var done sync.WaitGroup
	all := make([]hog, hogs)
	done.Add(hogs)
	for i := range all {
		go func(h *hog) {
			h.compute()
			done.Done()
		}(&all[i])
	}
	for atomic.LoadInt32(&begun) < hogs {
		time.Sleep(10 * time.Millisecond)
	}
	for i := range all {
		all[i].lapsBefore = atomic.LoadInt64(&all[i].laps)
	}
	others := &paced{pairs: pairs, rounds: rounds, period: period, start: time.Now().Add(lead)}
	others.begin()
	time.Sleep(time.Until(others.start.Add(rounds * period)))
	unfair := unfairness(all)
	atomic.StoreInt32(&isOver, 1)
	others.done.Wait()
	done.Wait()
	return []float64{others.percentile(0, 0.99) / 1e6, others.percentile(0, 1) / 1e6, unfair}
}

func main() {
	b := &bench{question: "hog_echo", metrics: []metric{{"", "ms"}, {"max", "ms"}, {"unfair", "1 - Jain"}}, isFresh: true}
	b.run = run
	b.main()
}
