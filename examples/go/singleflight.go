// singleflight.go: singleflight in front of a cache: many ask at once, one does the work.
package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// What golang.org/x/sync/singleflight does, in short, so that the standard library suffices here.
type call struct {
	done  chan struct{}
	value string
	err   error
}

type flight struct {
	mutex sync.Mutex
	calls map[string]*call
}

func (f *flight) Do(key string, fn func() (string, error)) (string, error) {
	f.mutex.Lock()
	if c, ok := f.calls[key]; ok {
		f.mutex.Unlock()
		<-c.done
		return c.value, c.err
	}
	c := &call{done: make(chan struct{})}
	f.calls[key] = c
	f.mutex.Unlock()
	c.value, c.err = fn()
	f.mutex.Lock()
	delete(f.calls, key)
	f.mutex.Unlock()
	close(c.done)
	return c.value, c.err
}

const callers = 20

var loads atomic.Int32
var cached atomic.Value

// The slow way to the answer. Whoever comes when a flight has just landed finds it in the cache.
func load() (string, error) {
	if cached.Load() == nil {
		loads.Add(1)
		time.Sleep(10 * time.Millisecond)
		cached.Store("a long answer")
	}
	return cached.Load().(string), nil
}

func main() {
	f := flight{calls: map[string]*call{}}
	var answers [callers]string
	var group sync.WaitGroup
	for i := range answers {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			answers[i], _ = f.Do("question", load)
		}(i)
	}
	group.Wait()
	same := 0
	for _, answer := range answers {
		if answer == "a long answer" {
			same++
		}
	}
	fmt.Printf("%d answers, %d load\n", same, loads.Load())
}
