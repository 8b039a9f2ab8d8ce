// mutex_8: 8 goroutines lock one sync.Mutex, count, and unlock it; as b_mutex_8.c.
package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	goroutines        = 8
	pairsPerGoroutine = 1_000_000
)

func main() {
	b := &bench{question: "mutex_8", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		n := b.count(pairsPerGoroutine)
		var mutex sync.Mutex
		var counter int
		var arrived int64
		var isOpen int32
		var done sync.WaitGroup
		done.Add(goroutines)
		for i := 0; i < goroutines; i++ {
			go func() {
				atomic.AddInt64(&arrived, 1)
				for atomic.LoadInt32(&isOpen) == 0 {
					runtime.Gosched()
				}
				for j := 0; j < n; j++ {
					mutex.Lock()
					counter++
					mutex.Unlock()
				}
				done.Done()
			}()
		}
		for atomic.LoadInt64(&arrived) < goroutines {
			runtime.Gosched()
		}
		start := time.Now()
		atomic.StoreInt32(&isOpen, 1)
		done.Wait()
		value := float64(time.Since(start).Nanoseconds()) / float64(n*goroutines)
		check("counter", counter, n*goroutines)
		return []float64{value}
	}
	b.main()
}
