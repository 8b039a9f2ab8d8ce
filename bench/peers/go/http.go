// http_*: net/http's server with the same answers as examples/httpd; GOMAXPROCS = workers. /spin?ms=N computes for so
// long, /block?ms=N blocks its thread.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// handle answers with `text`, after having kept the goroutine busy for as long as the query says.
func handle(path, text string, keepBusy func(time.Duration)) {
	http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if keepBusy != nil {
			ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
			if err != nil {
				http.Error(w, "ms", http.StatusBadRequest)
				return
			}
			keepBusy(time.Duration(ms) * time.Millisecond)
		}
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, text)
	})
}

func spin(duration time.Duration) {
	for end := time.Now().Add(duration); time.Now().Before(end); {
	}
}

func block(duration time.Duration) {
	wait := syscall.NsecToTimespec(duration.Nanoseconds())
	for syscall.Nanosleep(&wait, &wait) == syscall.EINTR { // a signal may end it early
	}
}

func main() {
	port := flag.Int("port", 8080, "port on 127.0.0.1")
	workers := flag.Int("workers", runtime.NumCPU(), "GOMAXPROCS")
	flag.Parse()
	runtime.GOMAXPROCS(*workers)
	handle("/", "Hello, World!", nil)
	handle("/spin", "done\n", spin)
	handle("/block", "done\n", block)
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), nil))
}
