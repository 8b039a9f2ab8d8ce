// exec.go: os/exec: pipes to a child, its exit status, and a child whose time is up (CommandContext).
package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

func main() {
	command := exec.Command("tr", "a-z", "A-Z")
	command.Stdin = strings.NewReader("a warp and a weft")
	out, _ := command.Output()
	fmt.Println(string(out))

	command = exec.Command("sh", "-c", "exit 3")
	command.Run()
	fmt.Println("exit status", command.ProcessState.ExitCode())

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	command = exec.CommandContext(ctx, "sleep", "3600")
	command.Run()
	fmt.Println("killed:", command.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL)

	err := exec.Command("no-such-program").Run()
	fmt.Println("not found:", errors.Is(err, exec.ErrNotFound))
}
