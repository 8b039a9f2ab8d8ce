// echo.go: net.Listen, Accept, Dial, deadlines and Close: a server that shouts back, and its clients.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const clients = 5

func serve(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 256)
	for {
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err = conn.Write(bytes.ToUpper(buf[:n])); err != nil {
			return
		}
	}
}

// Accepts until the listener is closed, and waits for the connections that are still served then.
func acceptLoop(listener net.Listener) {
	var conns sync.WaitGroup
	for {
		conn, err := listener.Accept()
		if err != nil {
			break
		}
		conns.Add(1)
		go func() {
			defer conns.Done()
			serve(conn)
		}()
	}
	conns.Wait()
}

func talk(address string, number int) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	text := fmt.Sprintf("hello from %d", number)
	if _, err = io.WriteString(conn, text); err != nil {
		return "", err
	}
	reply := make([]byte, len(text))
	_, err = io.ReadFull(conn, reply)
	return string(reply), err
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		acceptLoop(listener)
	}()
	var replies [clients]string
	var group sync.WaitGroup
	for i := range replies {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			replies[i], _ = talk(listener.Addr().String(), i)
		}(i)
	}
	group.Wait()
	listener.Close()
	<-stopped
	for _, reply := range replies {
		fmt.Println(reply)
	}
	fmt.Println("the server has stopped")
}
