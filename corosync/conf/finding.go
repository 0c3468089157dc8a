package conf

import (
	"fmt"
	"strings"
)

// The kinds of findings.
const (
	// Without these nothing else is looked at.
	KindNoNodes = "no-nodes"
	KindNoTotem = "no-totem"

	KindLinkWithoutInterface = "link-without-interface"
	KindInterfaceWithoutLink = "interface-without-link"
	KindLinkMissing          = "link-missing-on-node"

	KindDoubledID        = "doubled-node-id"
	KindDoubledAddress   = "doubled-address"
	KindDoubledName      = "doubled-name"
	KindSimilarName      = "names-differ-in-case-only"
	KindNoName           = "no-name"
	KindBadID            = "bad-node-id"
	KindMixedFamilies    = "mixed-families"
	KindBadVersion       = "bad-config-version"
	KindNoProvider       = "no-quorum-provider"
	KindDoubledInterface = "doubled-interface"
	KindDoubledKey       = "doubled-key"
	KindUnclosed         = "unclosed-section"
	KindCommentInValue   = "comment-in-value"

	// Warnings.
	KindNoAuth         = "no-auth-setting"
	KindUnresolvable   = "unresolvable"
	KindNameNotAddress = "name-not-address"
)

// Finding is something about a configuration that is wrong or worth a warning.
type Finding struct {
	Kind    string `json:"kind"`
	Node    string `json:"node,omitempty"`
	Other   string `json:"other,omitempty"` // a second node that it is about
	Key     string `json:"key,omitempty"`
	Link    string `json:"link,omitempty"`
	Value   string `json:"value,omitempty"`
	Address string `json:"address,omitempty"` // what a name resolves to
	Line    int    `json:"line,omitempty"`    // 0: it isn't about one line
}

func (f Finding) String() string {
	text := ""
	switch f.Kind {
	case KindNoNodes:
		text = "there is no nodelist"
	case KindNoTotem:
		text = "there is no totem section"
	case KindLinkWithoutInterface:
		text = fmt.Sprintf("node %s has %s, but totem has no interface %s", f.Node, f.Key, f.Link)
	case KindInterfaceWithoutLink:
		text = fmt.Sprintf("totem has interface %s, but node %s has no address on link %s", f.Link, f.Node, f.Link)
	case KindLinkMissing:
		text = fmt.Sprintf("node %s has no address on link %s, which other nodes have", f.Node, f.Link)
	case KindDoubledID:
		text = fmt.Sprintf("nodes %s and %s have the same nodeid %s", f.Node, f.Other, f.Value)
	case KindDoubledAddress:
		text = fmt.Sprintf("address %s of node %s is also an address of node %s", f.Value, f.Node, f.Other)
		if f.Node == f.Other {
			text = fmt.Sprintf("node %s has address %s on two links", f.Node, f.Value)
		}
	case KindDoubledName:
		text = fmt.Sprintf("two nodes have the name %s", f.Value)
	case KindSimilarName:
		text = fmt.Sprintf("the names %s and %s differ in upper and lower case only", f.Node, f.Other)
	case KindNoName:
		text = fmt.Sprintf("the node with ring0_addr %q has no name", f.Value)
	case KindBadID:
		text = fmt.Sprintf("node %s has no valid nodeid: %q", f.Node, f.Value)
	case KindMixedFamilies:
		text = fmt.Sprintf("link %s has IPv4 and IPv6 addresses; %s of node %s differs from the others", f.Link, f.Value, f.Node)
	case KindBadVersion:
		text = fmt.Sprintf("totem.config_version is no number from 1 on: %q", f.Value)
	case KindNoProvider:
		text = "quorum has no provider"
	case KindDoubledInterface:
		text = fmt.Sprintf("two interfaces have the number %s", f.Value)
	case KindDoubledKey:
		text = fmt.Sprintf("key %s is there twice in one section", f.Key)
	case KindUnclosed:
		text = fmt.Sprintf("section %s is not closed", f.Key)
	case KindCommentInValue:
		text = fmt.Sprintf("the value of %s has a comment behind it on its line: corosync would take it as part of the value", f.Key)
	case KindNoAuth:
		text = "traffic between the nodes is not authenticated: neither secauth nor crypto_cipher is set"
	case KindUnresolvable:
		text = fmt.Sprintf("%s of node %s, %s, does not resolve", f.Key, f.Node, f.Value)
	case KindNameNotAddress:
		text = fmt.Sprintf("%s of node %s is a name, %s (now %s): what it resolves to can change under corosync", f.Key, f.Node, f.Value, f.Address)
	default:
		text = f.Kind
	}
	if f.Line > 0 {
		text = fmt.Sprintf("line %d: %s", f.Line, text)
	}
	return text
}

// The kinds of refusals, beside those of findings.
const (
	KindConfigInvalid   = "config-invalid"
	KindNoConfigVersion = "no-config-version"
	KindAPIVersion      = "api-version"
	KindParameter       = "parameter"
	KindNodeExists      = "node-exists"
	KindUnknownNode     = "unknown-node"
	KindLinkNotGiven    = "link-missing"
	KindLinkUnknown     = "link-unknown"
	KindNoAddress       = "no-address"
	KindOneAddress      = "one-address-many-links"
	KindOneLegacy       = "legacy-one-address-many-links"
	KindIDTaken         = "id-taken"
	KindAddressTaken    = "duplicate-address"
	KindQDevice         = "qdevice-present"
)

// Refusal is why a configuration isn't changed.
type Refusal struct {
	Kind     string
	Text     string
	Findings []Finding // what is wrong with the configuration; may be empty
}

func (r *Refusal) Error() string {
	text := r.Text
	if text == "" {
		text = "corosync.conf is not as it must be"
	}
	var list []string
	for _, f := range r.Findings {
		list = append(list, f.String())
	}
	if len(list) > 0 {
		text += ": " + strings.Join(list, "; ")
	}
	return text
}

func refuse(kind, format string, args ...any) *Refusal {
	return &Refusal{Kind: kind, Text: fmt.Sprintf(format, args...)}
}
