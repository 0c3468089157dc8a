package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/bench/floor"
	"pmxcfs/contrib/bench/load"
	"pmxcfs/contrib/bench/report"
	"pmxcfs/contrib/bench/server"
	"pmxcfs/corosync/qb"
	"pmxcfs/corosync/qb/qbclient"
	"pmxcfs/status/ipc"
)

// placement says where a service and its clients run. A round trip is two wake-ups,
// which cost several times as much between CPUs as on one: left to the scheduler, a
// lone client's rate would be the one or the other by chance.
type placement struct {
	name            string
	clients         int
	service, client int // CPUs; -1: all
}

func (c *config) placements() []placement {
	var list []placement
	for _, n := range c.clients {
		if n > 1 {
			list = append(list, placement{"any", n, -1, -1})
			continue
		}
		list = append(list, placement{report.SameCPU, 1, 0, 0})
		if report.ThisMachine().CPUs > 1 {
			list = append(list, placement{report.OtherCPU, 1, 0, 1})
		}
	}
	return list
}

// pin lets the threads that a process has now, and those they start, run on that CPU
// only; -1: on all.
func pin(pid, cpu int) error {
	var set unix.CPUSet
	for i := range report.ThisMachine().CPUs {
		if cpu < 0 || i == cpu {
			set.Set(i)
		}
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("sched_setaffinity: %w", err)
		}
	}
	return nil
}

// request is one kind of request.
type request struct {
	name string
	id   int32
	data []byte
}

const (
	ipcGuests = 1000
	smallConf = "bench-small"
	largeConf = "bench-large"
	statusKey = "bench"
)

// name256 is a name in a field of its own.
func name256(s string) []byte { return append([]byte(s), make([]byte, 256-len(s))...) }

// requests are those that are measured. What one of them reads is there: by
// prepareIPC, or as it is set before.
func requests() []request {
	u32 := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	return []request{
		{"1 version", ipc.OpVersion, nil},
		{"3 guest list", ipc.OpGuestList, nil},
		{"4 set status 512 B", ipc.OpSetStatus, append(name256(statusKey), bytes.Repeat([]byte("s"), 512)...)},
		{"5 get status", ipc.OpGetStatus, append(name256(statusKey), name256("")...)},
		{"6 config 1 KiB", ipc.OpGetConfig, append([]byte(smallConf), 0)},
		{"6 config 1 MiB", ipc.OpGetConfig, append([]byte(largeConf), 0)},
		{"11 one property", ipc.OpGuestProperty, append(u32(0), "name\x00"...)},
		{"13 three properties", ipc.OpGuestProperties, append(u32(0), "\x03name\x00tags\x00memory\x00"...)},
	}
}

// guestConf is a guest's configuration of ordinary size.
func guestConf(vmid int) []byte {
	return fmt.Appendf(nil, `#A guest of the benchmark.
agent: 1
boot: order=scsi0;ide2;net0
cores: 4
cpu: x86-64-v2-AES
ide2: none,media=cdrom
memory: 8192
name: guest-%d
net0: virtio=BC:24:11:%02X:%02X:01,bridge=vmbr0,firewall=1
onboot: 1
ostype: l26
scsi0: local-lvm:vm-%d-disk-0,iothread=1,size=32G
scsihw: virtio-scsi-single
smbios1: uuid=00000000-0000-4000-8000-%012d
tags: production;web

[before-upgrade]
memory: 4096
name: guest-%d
`, vmid, vmid>>8&255, vmid&255, vmid, vmid, vmid)
}

func prepareIPC(mount string) error {
	dir := filepath.Join(mount, "nodes/node1/qemu-server")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range ipcGuests {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.conf", 100+i)), guestConf(100+i), 0o640); err != nil {
			return err
		}
	}
	const largest = 1<<20 - qb.ResponseHeader
	return errors.Join(
		os.WriteFile(filepath.Join(mount, smallConf), bytes.Repeat([]byte("c"), 1<<10), 0o640),
		os.WriteFile(filepath.Join(mount, largeConf), bytes.Repeat([]byte("c"), largest), 0o640),
	)
}

// requestRates measures the service that Proxmox's tools call, beside a bare libqb
// server.
func (c *config) requestRates(ctx context.Context, r *report.Report) (err error) {
	service := fmt.Sprintf("bench-pve2-%d", time.Now().UnixNano())
	subject, _, err := c.startDaemon(filepath.Join(c.dir, "ipc"), "--ipc-name", service)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, subject.Stop()) }()
	if err := prepareIPC(subject.Mount); err != nil {
		return err
	}
	echo, err := server.StartHelper(nil, self, partEcho, service+"-echo")
	if err != nil {
		return err
	}
	defer func() {
		_, serr := echo.Stop()
		err = errors.Join(err, serr)
	}()
	once, err := qbclient.Dial(service)
	if err != nil {
		return err
	}
	defer once.Close()
	for _, req := range requests() {
		answer, err := once.SendRecv(req.id, req.data, 10*time.Second)
		if err != nil {
			return fmt.Errorf("request %s: %w", req.name, err)
		}
		for _, at := range c.placements() {
			if err := errors.Join(pin(subject.PID(), at.service), pin(echo.PID(), at.service)); err != nil {
				return err
			}
			var ours, theirs []*load.Result
			for range c.rounds {
				a, err := c.requestRate(ctx, &load.RequestJob{Service: service, PID: subject.PID(), ID: req.id, Data: req.data}, at)
				if err != nil {
					return err
				}
				b, err := c.requestRate(ctx, &load.RequestJob{Service: service + "-echo", PID: echo.PID(), ID: 1, Data: floor.EchoRequest(len(req.data), len(answer))}, at)
				if err != nil {
					return err
				}
				ours, theirs = append(ours, a), append(theirs, b)
			}
			o := report.CompareRequests(req.name, at.name, at.clients, len(answer), ours, theirs)
			c.say("request %-20s %d, %-9s: %8.0f/s, echo %8.0f/s, ratio %.2f", o.Name, o.Clients, o.Place, o.Subject.PerSecond, o.Floor.PerSecond, o.Ratio)
			r.Requests = append(r.Requests, o)
		}
	}
	if err := pin(subject.PID(), -1); err != nil {
		return err
	}
	if err := c.beside(ctx, r, subject, service); err != nil {
		return err
	}
	return c.polling(ctx, r, subject, service)
}

func (c *config) requestRate(ctx context.Context, job *load.RequestJob, at placement) (*load.Result, error) {
	job.Clients, job.CPU, job.Warm, job.Time = at.clients, at.client, c.warm, c.time
	var res load.Result
	return &res, measure(ctx, partRequests, job, &res)
}
