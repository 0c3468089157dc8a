package cfg_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cfg"
	"pmxcfs/corosync/internal/conntest"
)

func open(t *testing.T) *cfg.Conn {
	t.Helper()
	c, err := conntest.Open(cfg.Open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestReloadReachesEveryNode(t *testing.T) {
	if lab.Inside() {
		if err := open(t).ReloadConfig(); err != nil {
			t.Error(err)
		}
		return
	}
	l := lab.New(t, 2)
	conf := l.Conf()
	conf.Version, conf.Token = 7, 4321*time.Millisecond
	for _, h := range l.Hosts() {
		if err := h.WriteConf(conf); err != nil {
			t.Fatal(err)
		}
	}
	l.Host(1).RunSelf(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, h := range l.Hosts() {
		for key, want := range map[string]string{"totem.config_version": "= 7", "totem.token": "= 4321"} {
			out, err := h.Exec(ctx, "corosync-cmapctl", "-g", key)
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s: %s: %q, %v; want %q", h.Name(), key, out, err, want)
			}
		}
	}
}

func TestOnOneOfTwoHosts(t *testing.T) {
	if !lab.Inside() {
		lab.New(t, 2).Host(1).RunSelf(t)
		return
	}
	t.Run("ReloadOfABrokenFileIsRefused", testBrokenFile)
	t.Run("StatusTellsTheLinks", testStatus)
	t.Run("ClosedConnectionRefusesEverything", testClosed)
	t.Run("OpenAndCloseLeakNothing", func(t *testing.T) {
		conntest.Connections(t, func() *cfg.Conn {
			c, err := cfg.Open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.LocalNodeID(); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return c
		})
	})
}

func testBrokenFile(t *testing.T) {
	const file = "/etc/corosync/corosync.conf"
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("totem {\n  version: 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := open(t)
	if err := c.ReloadConfig(); err == nil || errors.Is(err, corosync.ErrConnectionLost) {
		t.Errorf("reload of a broken file: %v", err)
	}
	if err := os.WriteFile(file, good, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.ReloadConfig(); err != nil {
		t.Errorf("reload of the good file: %v", err)
	}
}

func testStatus(t *testing.T) {
	c := open(t)
	if id, err := c.LocalNodeID(); err != nil || id != 1 {
		t.Errorf("local node id: %d, %v", id, err)
	}
	s, err := c.NodeStatus(2)
	if err != nil || s.Node != 2 || !s.Reachable || len(s.Links) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if l := s.Links[0]; l.Number != 0 || !l.Connected || l.Source != lab.Address(1) || l.Destination != lab.Address(2) {
		t.Errorf("%+v", l)
	}
	if s, err := c.NodeStatus(99); err == nil {
		t.Errorf("a node that isn't there: %+v", s)
	}
}

func testClosed(t *testing.T) {
	c := open(t)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	_, idErr := c.LocalNodeID()
	_, statusErr := c.NodeStatus(1)
	for _, err := range []error{idErr, statusErr, c.ReloadConfig()} {
		if !errors.Is(err, corosync.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	}
}

func TestOpenWithoutCorosync(t *testing.T) {
	if !lab.Inside() {
		lab.NewWith(t, lab.Options{Hosts: 1, NoCorosync: true}).Host(1).RunSelf(t)
		return
	}
	if c, err := cfg.Open(); !errors.Is(err, corosync.ErrConnectionLost) {
		t.Fatalf("%v, %v", c, err)
	}
}

func TestKilledNodeIsGoneAndAddressesAreKnown(t *testing.T) {
	if lab.Inside() {
		c := open(t)
		for id, want := range map[corosync.NodeID]string{1: "10.99.0.1", 2: "10.99.0.2"} {
			addrs, err := c.NodeAddresses(id)
			if err != nil || len(addrs) != 1 || addrs[0].String() != want {
				t.Errorf("addresses of %d: %v, %v; want %s", id, addrs, err, want)
			}
		}
		if addrs, err := c.NodeAddresses(7); err == nil && len(addrs) > 0 {
			t.Errorf("a node that does not exist has addresses: %v", addrs)
		}
		if err := c.KillNode(2, "a test"); err != nil {
			t.Errorf("kill: %v", err)
		}
		return
	}
	l := lab.New(t, 2)
	victim := l.Host(2).Corosync()
	l.Host(1).RunSelf(t)
	select {
	case <-victim.Done():
	case <-time.After(20 * time.Second):
		t.Error("corosync of the killed node still runs after 20 s")
	}
}
