package netns

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/needs"
)

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestNewNamespaceHoldsOnlyLoopback(t *testing.T) {
	needs.Host(t, needs.Root)
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = Do(ns, func() error {
		links, err := net.Interfaces()
		if err == nil && (len(links) != 1 || links[0].Name != "lo") {
			t.Errorf("links = %v, want lo alone", links)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNoThreadStaysInANamespace(t *testing.T) {
	needs.Host(t, needs.Root)
	home := inode(t, "/proc/self/ns/net")
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for range 50 {
		if err := Do(ns, func() error { runtime.Gosched(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if got := inode(t, "/proc/self/task/"+task.Name()+"/ns/net"); got != home {
			t.Errorf("thread %s is in namespace %d, want %d", task.Name(), got, home)
		}
	}
}

func TestSocketsKeepTheirNamespace(t *testing.T) {
	needs.Host(t, needs.Root)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	l, err := Listen(ctx, ns, "unix", "@bo-netns-test")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	if c, err := net.Dial("unix", "@bo-netns-test"); err == nil {
		c.Close()
		t.Error("an abstract socket of the namespace is visible outside")
	}
	c, err := Dial(ctx, ns, "unix", "@bo-netns-test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v; want hello", got, err)
	}
}
