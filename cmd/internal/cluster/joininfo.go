package cluster

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/keys"
	"pmxcfs/cmd/internal/plan"
	"pmxcfs/corosync/conf"
)

// Info is what the web interface shows for copying to a node that shall join.
type Info struct {
	Address     string            `json:"ipAddress"`
	Fingerprint string            `json:"fingerprint,omitempty"` // SHA-256 of the web server's certificate
	PeerLinks   map[string]string `json:"peerLinks"`             // by the link's number
	Addresses   []string          `json:"ring_addr"`
	Totem       map[string]any    `json:"totem"`
}

// JoinInfo returns this node's.
func JoinInfo(h *host.Host) (*Info, error) {
	if err := NeedCluster(h); err != nil {
		return nil, err
	}
	f, err := Read(h)
	if err != nil {
		return nil, err
	}
	node := f.Node(h.Name)
	if node == nil {
		return nil, plan.Fail(plan.Refused, "unknown-node", "", "this node, %s, is not in %s", h.Name, host.ClusterConf)
	}
	address, err := h.Address()
	if err != nil {
		return nil, err
	}
	info := &Info{Address: address.String(), PeerLinks: map[string]string{}, Totem: map[string]any{}}
	for _, n := range conf.Links(node) {
		_, a := conf.LinkAddress(node, n)
		info.PeerLinks[strconv.Itoa(n)] = a
		info.Addresses = append(info.Addresses, a)
	}
	totem := f.Section("totem")
	for _, key := range totem.Keys() {
		info.Totem[key] = totem.Get(key)
	}
	interfaces := map[string]any{}
	for _, i := range f.Interfaces() {
		keys := map[string]string{}
		for _, key := range i.Keys() {
			keys[key] = i.Get(key)
		}
		number := i.Get("linknumber")
		if number == "" {
			number = i.Get("ringnumber")
		}
		interfaces[number] = keys
	}
	info.Totem["interface"] = interfaces
	if info.Fingerprint, err = WebFingerprint(h, h.Name); err != nil {
		h.Warnf("the fingerprint is left out: %v", err)
	}
	return info, nil
}

// WebFingerprint is the SHA-256 of the certificate that a node's web server has: the
// administrator's own one, else the cluster's.
func WebFingerprint(h *host.Host, node string) (string, error) {
	dir := host.Mount + "/nodes/" + node + "/"
	text, err := h.ReadFile(dir + "pveproxy-ssl.pem")
	if errors.Is(err, fs.ErrNotExist) {
		text, err = h.ReadFile(dir + "pve-ssl.pem")
	}
	if err != nil {
		return "", err
	}
	return keys.Fingerprint(text)
}

// Text is the JSON that the join information holds in base64.
func (i *Info) Text() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(i); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// ParseInfo reads join information.
func ParseInfo(text string) (*Info, error) {
	bad := func(format string, args ...any) error {
		return plan.Fail(plan.Parameters, "join-info", "copy all of it", "the join information can't be read: "+format, args...)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, bad("%v", err)
	}
	var i Info
	if err := json.Unmarshal(raw, &i); err != nil {
		return nil, bad("%v", err)
	}
	if err := conf.ValidAddress(i.Address); err != nil {
		return nil, bad("%v", err)
	}
	if i.Fingerprint != "" {
		if err := conf.ValidFingerprint(i.Fingerprint); err != nil {
			return nil, bad("%v", err)
		}
	}
	if len(i.Totem) == 0 {
		return nil, bad("it says nothing about the cluster")
	}
	return &i, nil
}

// Links are the numbers of the cluster's links.
func (i *Info) Links() (list []int) {
	for _, key := range slices.Sorted(maps.Keys(i.PeerLinks)) {
		if n, err := strconv.Atoi(key); err == nil {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}
