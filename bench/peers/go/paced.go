// Pairs of goroutines that keep a timetable; as bench/paced.h.
package main

import (
	"sort"
	"sync"
	"time"
)

type paced struct {
	pairs, rounds int // of each pair
	period        time.Duration
	start         time.Time
	trips         []time.Duration // in the order of their due times
	done          sync.WaitGroup
}

func (p *paced) due(n int) time.Time {
	period := time.Duration(n/p.pairs) * p.period
	return p.start.Add(period + time.Duration(n%p.pairs)*p.period/time.Duration(p.pairs))
}

func (p *paced) ask(pair int, question, answer chan int) {
	for n := pair; n < p.pairs*p.rounds; n += p.pairs {
		due := p.due(n)
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		question <- n
		check("answer", <-answer, n+1)
		p.trips[n] = time.Since(due)
	}
	p.done.Done()
}

// begin starts the pairs; p.done.Wait() waits for their ends.
func (p *paced) begin() {
	p.trips = make([]time.Duration, p.pairs*p.rounds)
	p.done.Add(p.pairs)
	for i := 0; i < p.pairs; i++ {
		question, answer := make(chan int), make(chan int)
		go func() {
			for j := 0; j < p.rounds; j++ {
				answer <- <-question + 1
			}
		}()
		go p.ask(i, question, answer)
	}
}

// percentile tells how long the round trips took that were due `skip` after the start or later: the longest of the
// shortest `part` of them, in nanoseconds.
func (p *paced) percentile(skip time.Duration, part float64) float64 {
	first := sort.Search(len(p.trips)-1, func(n int) bool { return !p.due(n).Before(p.start.Add(skip)) })
	sorted := append([]time.Duration(nil), p.trips[first:]...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	rank := int(part * float64(len(sorted)))
	if rank >= len(sorted) {
		rank = len(sorted) - 1
	}
	return float64(sorted[rank].Nanoseconds())
}
