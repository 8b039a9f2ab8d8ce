// echo_*, spinner_p99: a goroutine per connection; GOMAXPROCS = workers. --hogs goroutines compute all the time,
// --blockers sleep in a system call for a second again and again (the runtime is told by the wrapper of the call, as it
// is of every system call of Go), and each connection to --spin-port makes one compute for a second.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"runtime"
	"syscall"
	"time"
)

const bufferBytes = 4096

func serve(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, bufferBytes)
	for {
		bytes, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err = conn.Write(buffer[:bytes]); err != nil {
			return
		}
	}
}

func spin(conn net.Conn) {
	defer conn.Close()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
	}
}

func hog() {
	for sum := 0; ; sum++ {
	}
}

func block() {
	for {
		syscall.Nanosleep(&syscall.Timespec{Sec: 1}, nil)
	}
}

func acceptFor(port int, handle func(net.Conn)) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go handle(conn)
	}
}

func main() {
	port := flag.Int("port", 8080, "port on 127.0.0.1")
	workers := flag.Int("workers", runtime.NumCPU(), "GOMAXPROCS")
	hogs := flag.Int("hogs", 0, "goroutines that compute")
	blockers := flag.Int("blockers", 0, "goroutines that block their threads")
	spinPort := flag.Int("spin-port", 0, "port whose connections make a goroutine compute for 1 s")
	flag.Parse()
	runtime.GOMAXPROCS(*workers)
	for i := 0; i < *hogs; i++ {
		go hog()
	}
	for i := 0; i < *blockers; i++ {
		go block()
	}
	if *spinPort > 0 {
		go acceptFor(*spinPort, spin)
	}
	acceptFor(*port, serve)
}
