package status

import (
	"bytes"
	"errors"
)

// Messages of the group pve_kvstore_v1 (the specification of the status store,
// "Normal messages"): subtype and payload.
const (
	// subtypeUpdate: keyField bytes key, NUL-terminated within, then the value.
	subtypeUpdate uint16 = 1
	// subtypeLog: one cluster log entry.
	subtypeLog uint16 = 3
)

// errMessage is the error about bytes that are not an update.
var errMessage = errors.New("status: malformed update")

// encodeUpdate returns an update's payload. The key is shorter than keyField.
func encodeUpdate(key string, value []byte) []byte {
	b := make([]byte, keyField, keyField+len(value))
	copy(b, key)
	return append(b, value...)
}

// decodeUpdate takes an update's payload apart. The value shares its memory. What
// follows the key's NUL in its field may be anything: stock peers send what lay
// about.
func decodeUpdate(b []byte) (key string, value []byte, err error) {
	if len(b) < keyField {
		return "", nil, errMessage
	}
	n := bytes.IndexByte(b[:keyField], 0)
	if n < 0 {
		return "", nil, errMessage
	}
	return string(b[:n]), b[keyField:], nil
}

// PostKey returns the name whose value a message tells, empty for any other message. Of
// those of one name that are not sent yet, only the newest is worth sending: a
// group.Config's Key.
func PostKey(subtype uint16, payload []byte) string {
	if subtype != subtypeUpdate {
		return ""
	}
	name, _, err := decodeUpdate(payload)
	if err != nil {
		return ""
	}
	return name
}
