package kvserver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be a node: nodes that shall be killed must be processes.
func TestMain(m *testing.M) {
	if path := os.Getenv("KVSERVER_TEST_NODE"); path != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := Main(ctx, []string{"--config", path}, os.Stdout, os.Stderr)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startProcesses starts the nodes of a cluster as processes and waits for a leader.
func startProcesses(tb testing.TB, n int, tune func(*Config)) *testCluster {
	tb.Helper()
	k := &testCluster{tb: tb, conf: testConfigs(tb, n, tune), procs: make([]*exec.Cmd, n)}
	tb.Cleanup(func() {
		for i := range k.procs {
			k.kill(i)
		}
	})
	for i := range k.conf {
		k.spawn(i)
	}
	k.procLeader()
	return k
}

func (k *testCluster) spawn(i int) {
	k.tb.Helper()
	data, err := json.Marshal(k.conf[i])
	if err != nil {
		k.tb.Fatal(err)
	}
	path := k.conf[i].Dir + ".json"
	if err := os.WriteFile(path, data, 0o644); err != nil {
		k.tb.Fatal(err)
	}
	stderr, err := os.OpenFile(filepath.Join(filepath.Dir(path), k.conf[i].ID+".err"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		k.tb.Fatal(err)
	}
	defer stderr.Close()
	self, err := os.Executable()
	if err != nil {
		k.tb.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "KVSERVER_TEST_NODE="+path)
	cmd.Stderr = stderr
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		k.tb.Fatal(err)
	}
	k.procs[i] = cmd
}

// kill ends process i at once, with kill -9, and waits until it is gone.
func (k *testCluster) kill(i int) {
	if cmd := k.procs[i]; cmd != nil {
		cmd.Process.Kill()
		cmd.Wait() // its error is the kill
		k.procs[i] = nil
	}
}

// procLeader waits for a process that leads and can serve reads.
func (k *testCluster) procLeader() int {
	k.tb.Helper()
	found := -1
	eventually(k.tb, "a leader", func() bool {
		for i, cmd := range k.procs {
			if cmd == nil {
				continue
			}
			var st Status
			if k.tryStatus(i, &st) == nil && st.Readable {
				found = i
			}
		}
		return found >= 0
	})
	return found
}

func (k *testCluster) tryStatus(i int, st *Status) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	resp, err := k.request(ctx, i, "GET", "/status", "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(st)
}
