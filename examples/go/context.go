// context.go: WithCancel, WithTimeout, WithValue, Done and Err.
package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

type key struct{}

// Called from deep inside; the context is handed down to it.
func user(ctx context.Context) string {
	if name, ok := ctx.Value(key{}).(string); ok {
		return name
	}
	return "nobody"
}

func greet(ctx context.Context) {
	fmt.Println("user:", user(ctx))
	inner := context.WithValue(ctx, key{}, "root")
	fmt.Println("user:", user(inner))
	fmt.Println("user:", user(ctx))
}

func pollForEver(ctx context.Context, polls *int) {
	for {
		*polls++
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

func state(ctx context.Context) string {
	if ctx.Err() != nil {
		return "cancelled"
	}
	return "running"
}

func withCancel() {
	var polls [2]int
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for i := range polls {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			pollForEver(ctx, &polls[i])
		}(i)
	}
	time.Sleep(10 * time.Millisecond)
	fmt.Println("before:", state(ctx))
	cancel()
	group.Wait()
	fmt.Printf("after: %s, polled: %t\n", state(ctx), polls[0] > 0 && polls[1] > 0)
}

func withTimeout() {
	never := make(chan int)
	outer, cancelOuter := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancelOuter()
	inner, cancelInner := context.WithTimeout(outer, time.Hour)
	defer cancelInner()
	deadline, _ := inner.Deadline()
	fmt.Println("inner deadline within a minute:", time.Until(deadline) < time.Minute)
	select {
	case <-never:
		fmt.Println("receive: a value")
	case <-inner.Done():
		fmt.Println("receive: gave up")
	}
	if outer.Err() == context.DeadlineExceeded {
		fmt.Println("reason: deadline exceeded")
	} else {
		fmt.Println("reason: cancelled")
	}
}

func main() {
	ctx := context.Background()
	fmt.Println("user:", user(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		greet(context.WithValue(ctx, key{}, "ada"))
	}()
	<-done
	withCancel()
	withTimeout()
}
