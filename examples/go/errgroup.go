// errgroup.go: errgroup: the first error cancels the others, and is what the group returns.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// What golang.org/x/sync/errgroup does, in short, so that the standard library suffices here.
type group struct {
	wait   sync.WaitGroup
	once   sync.Once
	cancel context.CancelFunc
	err    error
}

func withContext(parent context.Context) (*group, context.Context) {
	ctx, cancel := context.WithCancel(parent)
	return &group{cancel: cancel}, ctx
}

func (g *group) Go(f func() error) {
	g.wait.Add(1)
	go func() {
		defer g.wait.Done()
		if err := f(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel()
			})
		}
	}()
}

func (g *group) Wait() error {
	g.wait.Wait()
	g.cancel()
	return g.err
}

var errNoPage = errors.New("no such page")

type fetch struct {
	page         string
	takes        time.Duration
	fails        error
	wasCancelled bool
}

func (f *fetch) run(ctx context.Context) error {
	select {
	case <-time.After(f.takes):
		return f.fails
	case <-ctx.Done():
		f.wasCancelled = true
		return ctx.Err()
	}
}

func fetchAll(fetches []fetch) error {
	g, ctx := withContext(context.Background())
	for i := range fetches {
		f := &fetches[i]
		g.Go(func() error { return f.run(ctx) })
	}
	return g.Wait()
}

func describe(err error) string {
	if err != nil {
		return err.Error()
	}
	return "all three"
}

func main() {
	ms := time.Millisecond
	good := []fetch{{page: "a", takes: 1 * ms}, {page: "b", takes: 2 * ms}, {page: "c", takes: 3 * ms}}
	bad := []fetch{{page: "a", takes: time.Hour}, {page: "b", takes: 2 * ms, fails: errNoPage}, {page: "c", takes: time.Hour}}
	fmt.Println("good:", describe(fetchAll(good)))
	fmt.Println("bad:", describe(fetchAll(bad)))
	for _, f := range bad {
		fmt.Printf("%s cancelled: %t\n", f.page, f.wasCancelled)
	}
}
