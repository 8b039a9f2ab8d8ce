// yield_2, yield_1000: runtime.Gosched among -fibers goroutines per worker; as b_yield.c.
package main

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const yieldsPerWorker = 10_000_000

var fibers = flag.Int("fibers", 2, "goroutines per worker")

func run(b *bench) []float64 {
	count := *fibers * b.workers
	yields := b.count(yieldsPerWorker) / *fibers
	var arrived int64
	var isOpen int32
	var done sync.WaitGroup
	done.Add(count)
	for i := 0; i < count; i++ {
		go func() {
			atomic.AddInt64(&arrived, 1)
			for atomic.LoadInt32(&isOpen) == 0 {
				runtime.Gosched()
			}
			for j := 0; j < yields; j++ {
				runtime.Gosched()
			}
			done.Done()
		}()
	}
	for atomic.LoadInt64(&arrived) < int64(count) {
		runtime.Gosched()
	}
	start := time.Now()
	atomic.StoreInt32(&isOpen, 1)
	done.Wait()
	wall := float64(time.Since(start).Nanoseconds())
	return []float64{wall * float64(b.workers) / float64(yields*count)}
}

func main() {
	b := &bench{metrics: []metric{{"", "ns"}}, run: run}
	flag.Parse()
	b.question = fmt.Sprintf("yield_%d", *fibers)
	b.main()
}
