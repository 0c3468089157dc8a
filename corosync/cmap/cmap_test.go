package cmap_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"pmxcfs/contrib/lab"
	"pmxcfs/corosync"
	"pmxcfs/corosync/cmap"
	"pmxcfs/corosync/internal/conntest"
)

func TestOnOneHost(t *testing.T) {
	if !lab.Inside() {
		lab.New(t, 1).Host(1).RunSelf(t)
		return
	}
	t.Run("GetReadsEveryType", testGet)
	t.Run("ListFindsAPrefix", testList)
	t.Run("TracksTellAddModifyDelete", testTrack)
	t.Run("BadKeysAreRefused", testBadKeys)
	t.Run("ClosedConnectionRefusesEverything", testClosed)
	t.Run("OpenAndCloseLeakNothing", func(t *testing.T) {
		conntest.Connections(t, func() *cmap.Conn {
			c := open(t)
			if _, err := c.TrackPrefix("pmx.", cmap.OpAll); err != nil {
				t.Fatal(err)
			}
			if _, err := c.List("totem."); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return c
		})
	})
}

func open(t *testing.T) *cmap.Conn {
	t.Helper()
	c, err := conntest.Open(cmap.Open)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cmapctl changes the map from outside.
func cmapctl(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "corosync-cmapctl", args...).CombinedOutput(); err != nil {
		t.Fatalf("corosync-cmapctl %q: %v: %s", args, err, out)
	}
}

func testGet(t *testing.T) {
	c := open(t)
	defer c.Close()
	long := strings.Repeat("long ", 400)
	for i, v := range []struct {
		name, text string
		typ        cmap.Type
	}{
		{"i8", "-8", cmap.TypeInt8}, {"u8", "200", cmap.TypeUint8},
		{"i16", "-1600", cmap.TypeInt16}, {"u16", "60000", cmap.TypeUint16},
		{"i32", "-70000", cmap.TypeInt32}, {"u32", "4000000000", cmap.TypeUint32},
		{"i64", "-5000000000", cmap.TypeInt64}, {"u64", "18000000000000000000", cmap.TypeUint64},
		{"flt", "1.5", cmap.TypeFloat}, {"dbl", "-0.25", cmap.TypeDouble},
		{"str", "a string", cmap.TypeString}, {"str", long, cmap.TypeString}, {"str", long[:255], cmap.TypeString},
	} {
		key := fmt.Sprintf("pmx.get.%d", i)
		cmapctl(t, "-s", "--", key, v.name, v.text)
		got, err := c.Get(key)
		if err != nil || got.Type != v.typ || got.String() != v.text {
			t.Errorf("%s %s: %+v, %v", v.name, v.text, got, err)
		}
	}
	v, err := c.Get("nodelist.node.0.nodeid")
	if n, ok := v.Uint(); err != nil || !ok || n != 1 {
		t.Errorf("node id: %v, %v", v, err)
	}
	if _, err := c.Get("pmx.not.there"); !errors.Is(err, corosync.ErrNotExist) {
		t.Errorf("no such key: %v", err)
	}
}

func testList(t *testing.T) {
	c := open(t)
	defer c.Close()
	for _, k := range []string{"a", "c", "b"} {
		cmapctl(t, "-s", "pmx.list."+k, "str", "value "+k)
	}
	got, err := c.List("pmx.list.")
	want := []string{"pmx.list.a=value a", "pmx.list.b=value b", "pmx.list.c=value c"}
	var text []string
	for _, e := range got {
		text = append(text, e.Key+"="+e.Value.String())
	}
	if err != nil || !slices.Equal(text, want) {
		t.Errorf("%q, %v; want %q", text, err, want)
	}
	all, err := c.Keys("")
	if err != nil || len(all) < 20 || !slices.Contains(all, "totem.cluster_name") {
		t.Errorf("all keys: %q, %v", all, err)
	}
	if none, err := c.Keys("pmx.none."); err != nil || len(none) > 0 {
		t.Errorf("no keys: %q, %v", none, err)
	}
}

func testTrack(t *testing.T) {
	c := open(t)
	defer c.Close()
	prefix, err := c.TrackPrefix("pmx.track.", cmap.OpAll)
	if err != nil {
		t.Fatal(err)
	}
	one, err := c.Track("pmx.track.x", cmap.OpModify)
	if err != nil {
		t.Fatal(err)
	}
	cmapctl(t, "-s", "pmx.track.x", "u32", "1")
	cmapctl(t, "-s", "pmx.track.x", "str", "two")
	cmapctl(t, "-d", "pmx.track.x")
	cmapctl(t, "-s", "pmx.other", "u8", "1")
	want := map[cmap.TrackID][]string{
		prefix: {`add pmx.track.x "" -> "1"`, `modify pmx.track.x "1" -> "two"`, `delete pmx.track.x "two" -> ""`},
		one:    {`modify pmx.track.x "1" -> "two"`},
	}
	check := func(n int, want map[cmap.TrackID][]string) {
		t.Helper()
		got := map[cmap.TrackID][]string{}
		deadline := time.Now().Add(20 * time.Second)
		for n > 0 && time.Now().Before(deadline) {
			events, err := c.Next(nil, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				n--
				got[e.Track] = append(got[e.Track], fmt.Sprintf("%v %s %q -> %q", e.Op, e.Key, e.Old, e.New))
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	check(4, want)
	if err := c.Untrack(prefix); err != nil {
		t.Fatal(err)
	}
	cmapctl(t, "-s", "pmx.track.x", "u32", "1")
	cmapctl(t, "-s", "pmx.track.x", "u32", "2")
	check(1, map[cmap.TrackID][]string{one: {`modify pmx.track.x "1" -> "2"`}})
}

func testBadKeys(t *testing.T) {
	c := open(t)
	defer c.Close()
	for key, want := range map[string]corosync.Code{
		"":                       corosync.ErrInvalidParam,
		"a\x00bc":                corosync.ErrInvalidParam,
		strings.Repeat("k", 256): corosync.ErrNameTooLong,
	} {
		_, getErr := c.Get(key)
		_, trackErr := c.Track(key, cmap.OpAll)
		for _, err := range []error{getErr, trackErr} {
			if !errors.Is(err, want) {
				t.Errorf("%q: %v", key, err)
			}
		}
	}
	if _, err := c.Get("x"); err == nil {
		t.Error("a key of one byte was found")
	}
}

func testClosed(t *testing.T) {
	c := open(t)
	ended := make(chan error)
	go func() {
		_, err := c.Next(nil, cmap.Forever)
		ended <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	_, getErr := c.Get("abc")
	_, keysErr := c.Keys("abc")
	_, listErr := c.List("abc")
	_, trackErr := c.Track("abc", cmap.OpAll)
	for _, err := range []error{<-ended, getErr, keysErr, listErr, trackErr, c.Untrack(1)} {
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
	if c, err := cmap.Open(); !errors.Is(err, corosync.ErrConnectionLost) {
		t.Fatalf("%v, %v", c, err)
	}
}
