// cond.go: Cond: a queue that waits when it is empty or full.
package main

import (
	"fmt"
	"sync"
)

const (
	room      = 4
	items     = 1000
	producers = 3
)

type queue struct {
	mutex             sync.Mutex
	notEmpty, notFull *sync.Cond
	items             []int
}

func newQueue() *queue {
	q := &queue{}
	q.notEmpty, q.notFull = sync.NewCond(&q.mutex), sync.NewCond(&q.mutex)
	return q
}

func (q *queue) put(item int) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for len(q.items) == room {
		q.notFull.Wait()
	}
	q.items = append(q.items, item)
	q.notEmpty.Signal()
}

func (q *queue) take() int {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for len(q.items) == 0 {
		q.notEmpty.Wait()
	}
	item := q.items[0]
	q.items = q.items[1:]
	q.notFull.Signal()
	return item
}

func main() {
	q, sum := newQueue(), 0
	for i := 0; i < producers; i++ {
		go func() {
			for i := 1; i <= items; i++ {
				q.put(i)
			}
		}()
	}
	for i := 0; i < producers*items; i++ {
		sum += q.take()
	}
	fmt.Printf("the sum is %d, and %d are left\n", sum, len(q.items))
}
