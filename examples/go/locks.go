// locks.go: Mutex, RWMutex, Once and atomics.
package main

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	goroutines = 8
	rounds     = 1000
)

var shop struct {
	once         sync.Once
	mutex        sync.Mutex
	count        int // under mutex
	lock         sync.RWMutex
	price, stock int // under lock; always the same
	looks, torn  atomic.Int32
}

func customer() {
	shop.once.Do(func() { fmt.Println("the shop opens") })
	for i := 0; i < rounds; i++ {
		shop.mutex.Lock()
		shop.count++
		shop.mutex.Unlock()

		if i%10 == 0 {
			shop.lock.Lock()
			shop.price++
			shop.stock++
			shop.lock.Unlock()
		} else {
			shop.lock.RLock()
			shop.looks.Add(1)
			if shop.price != shop.stock {
				shop.torn.Add(1)
			}
			shop.lock.RUnlock()
		}
	}
}

func main() {
	var group sync.WaitGroup
	for i := 0; i < goroutines; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			customer()
		}()
	}
	group.Wait()
	fmt.Printf("count %d, price %d, looks %d, torn %d\n", shop.count, shop.price, shop.looks.Load(), shop.torn.Load())
}
