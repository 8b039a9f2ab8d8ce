// csp_forkjoin: the sum of the numbers from 0 to 10^7, a goroutine for every half of every range; as b_csp_forkjoin.c.
package main

import (
	"math"
	"sync"
	"syscall"
	"time"
)

const (
	last      = 10_000_000
	lastQuick = 1_000_000
)

type numbers struct{ first, last, sum int }

func sumUp(self *numbers) {
	if self.first == self.last {
		self.sum = self.first
		return
	}
	middle := self.first + (self.last-self.first)/2
	low, high := numbers{first: self.first, last: middle}, numbers{first: middle + 1, last: self.last}
	var ended sync.WaitGroup
	ended.Add(2)
	go func() {
		sumUp(&low)
		ended.Done()
	}()
	go func() {
		sumUp(&high)
		ended.Done()
	}()
	ended.Wait()
	self.sum = low.sum + high.sum
}

func main() {
	b := &bench{question: "csp_forkjoin", metrics: []metric{{"", "ns"}, {"run", "s"}, {"peak", "MB"}}, isFresh: true}
	b.run = func(b *bench) []float64 {
		n := last
		if b.quick {
			n = lastQuick
		}
		var ended sync.WaitGroup
		all := numbers{last: n}
		start := time.Now()
		ended.Add(1)
		go func() {
			sumUp(&all)
			ended.Done()
		}()
		ended.Wait()
		elapsed := time.Since(start)
		check("sum", all.sum, n*(n+1)/2)
		seconds := elapsed.Seconds()
		if b.quick {
			seconds = math.NaN()
		}
		var usage syscall.Rusage
		must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
		return []float64{float64(elapsed.Nanoseconds()) / float64(2*n+1), seconds, float64(usage.Maxrss) * 1024 / 1e6}
	}
	b.main()
}
