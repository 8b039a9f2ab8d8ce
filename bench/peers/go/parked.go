// A crowd of goroutines that wait on a channel; as bench/parked.h.
package main

import (
	"runtime"
	"sync"
	"sync/atomic"
)

type crowd struct {
	gate   chan struct{}
	parked int64
	ended  sync.WaitGroup
}

func parkCrowd(count int) *crowd {
	c := &crowd{gate: make(chan struct{})}
	c.ended.Add(count)
	for i := 0; i < count; i++ {
		go func() {
			atomic.AddInt64(&c.parked, 1)
			<-c.gate
			c.ended.Done()
		}()
	}
	for atomic.LoadInt64(&c.parked) < int64(count) {
		runtime.Gosched()
	}
	return c
}

func (c *crowd) release() {
	close(c.gate)
	c.ended.Wait()
}
