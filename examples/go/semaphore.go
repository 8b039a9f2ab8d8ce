// semaphore.go: semaphore.Weighted: jobs of different sizes share ten places.
package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// What golang.org/x/sync/semaphore does, in short, so that the standard library suffices here.
type waiter struct {
	n     int
	ready chan struct{}
}

type weighted struct {
	mutex   sync.Mutex
	free    int
	waiters []*waiter
}

func (w *weighted) Acquire(ctx context.Context, n int) error {
	w.mutex.Lock()
	me := &waiter{n, make(chan struct{})}
	w.waiters = append(w.waiters, me)
	w.admit()
	w.mutex.Unlock()
	select {
	case <-me.ready:
		return nil
	case <-ctx.Done():
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for i, other := range w.waiters {
		if other == me {
			w.waiters = append(w.waiters[:i], w.waiters[i+1:]...)
			w.admit()
			return ctx.Err()
		}
	}
	return nil
}

func (w *weighted) TryAcquire(n int) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	ok := len(w.waiters) == 0 && w.free >= n
	if ok {
		w.free -= n
	}
	return ok
}

func (w *weighted) Release(n int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.free += n
	w.admit()
}

func (w *weighted) admit() {
	for len(w.waiters) > 0 && w.waiters[0].n <= w.free {
		w.free -= w.waiters[0].n
		close(w.waiters[0].ready)
		w.waiters = w.waiters[1:]
	}
}

const (
	total = 10
	jobs  = 30
)

var places = weighted{free: total}
var used, most, finished atomic.Int32

func job(i int) {
	size := 1 + i%5
	places.Acquire(context.Background(), size)
	defer places.Release(size)
	now, before := used.Add(int32(size)), most.Load()
	for before < now && !most.CompareAndSwap(before, now) {
		before = most.Load()
	}
	time.Sleep(time.Millisecond)
	used.Add(int32(-size))
	finished.Add(1)
}

func main() {
	places.Acquire(context.Background(), total)
	fmt.Println("try:", places.TryAcquire(1))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
	defer cancel()
	if places.Acquire(ctx, 1) != nil {
		fmt.Println("with a timeout: late")
	} else {
		fmt.Println("with a timeout: in time")
	}
	places.Release(total)

	var group sync.WaitGroup
	for i := 0; i < jobs; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			job(i)
		}(i)
	}
	group.Wait()
	fmt.Printf("%d jobs, never more than %d places: %t\n", finished.Load(), total, most.Load() <= total)
}
