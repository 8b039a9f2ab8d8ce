// http.go: net/http in small: handlers, a time limit for each request, Shutdown.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

func handle(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/hello":
		io.WriteString(w, "hello, world")
	case "/slow":
		select {
		case <-time.After(time.Hour):
			io.WriteString(w, "at last")
		case <-r.Context().Done():
		}
	default:
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "no such page")
	}
}

func get(url string) (int, string) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	handler := http.TimeoutHandler(http.HandlerFunc(handle), 100*time.Millisecond, "too slow")
	server := &http.Server{Handler: handler, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	go server.Serve(listener)

	paths := []string{"/hello", "/slow", "/missing"}
	statuses, bodies := make([]int, 3), make([]string, 3)
	var group sync.WaitGroup
	for i := range paths {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			statuses[i], bodies[i] = get("http://" + listener.Addr().String() + paths[i])
		}(i)
	}
	group.Wait()
	for i, path := range paths {
		fmt.Printf("GET %s: %d %s\n", path, statuses[i], bodies[i])
	}
	server.Shutdown(context.Background())
	fmt.Println("shut down")
}
