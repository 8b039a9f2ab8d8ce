// signals.go: signal.Notify: a server that reloads on one signal and stops on another.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The server: works until it is cancelled.
func serve(ctx context.Context) {
	for {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			fmt.Println("the server cleans up")
			return
		}
	}
}

func main() {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(ctx)
	}()

	syscall.Kill(os.Getpid(), syscall.SIGHUP) // as somebody else would
	var s os.Signal
	for s = range signals {
		if s != syscall.SIGHUP {
			break
		}
		fmt.Println("reload")
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}
	fmt.Printf("stop, on signal %d\n", s)
	cancel()
	<-done
	signal.Stop(signals)
}
