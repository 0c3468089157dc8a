package cmap

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// Type is the type of a value: cmap_value_types_t.
type Type uint32

// The types of cmap.h.
const (
	TypeInt8   Type = 1
	TypeUint8  Type = 2
	TypeInt16  Type = 3
	TypeUint16 Type = 4
	TypeInt32  Type = 5
	TypeUint32 Type = 6
	TypeInt64  Type = 7
	TypeUint64 Type = 8
	TypeFloat  Type = 9
	TypeDouble Type = 10
	TypeString Type = 11
	TypeBinary Type = 12
)

// Value is a value of the map. The zero Value stands for none: the key isn't
// there.
type Value struct {
	Type Type
	data any // int64, uint64, float64, string or []byte by Type
}

// decode makes a Value of what the library gives: raw in the machine's byte
// order, a string with or without its NUL. It copies. False: the size doesn't
// fit the type.
func decode(t Type, raw []byte) (Value, bool) {
	v := Value{Type: t}
	order := binary.NativeEndian
	if size := t.size(); size > 0 && len(raw) != size {
		return Value{}, false
	}
	switch t {
	case TypeInt8:
		v.data = int64(int8(raw[0]))
	case TypeUint8:
		v.data = uint64(raw[0])
	case TypeInt16:
		v.data = int64(int16(order.Uint16(raw)))
	case TypeUint16:
		v.data = uint64(order.Uint16(raw))
	case TypeInt32:
		v.data = int64(int32(order.Uint32(raw)))
	case TypeUint32:
		v.data = uint64(order.Uint32(raw))
	case TypeInt64:
		v.data = int64(order.Uint64(raw))
	case TypeUint64:
		v.data = order.Uint64(raw)
	case TypeFloat:
		v.data = float64(math.Float32frombits(order.Uint32(raw)))
	case TypeDouble:
		v.data = math.Float64frombits(order.Uint64(raw))
	case TypeString:
		for i, b := range raw {
			if b == 0 {
				raw = raw[:i]
				break
			}
		}
		v.data = string(raw)
	case TypeBinary:
		v.data = append([]byte{}, raw...)
	default:
		return Value{}, false
	}
	return v, true
}

// size is how many bytes a value of the type has; 0 means any number.
func (t Type) size() int {
	switch t {
	case TypeInt8, TypeUint8:
		return 1
	case TypeInt16, TypeUint16:
		return 2
	case TypeInt32, TypeUint32, TypeFloat:
		return 4
	case TypeInt64, TypeUint64, TypeDouble:
		return 8
	default:
		return 0
	}
}

// IsZero tells whether there is no value.
func (v Value) IsZero() bool { return v.Type == 0 }

// Uint gives an unsigned integer of any size; false means it is none.
func (v Value) Uint() (uint64, bool) {
	n, ok := v.data.(uint64)
	return n, ok
}

// Int gives an integer of any size that fits; false means it is none.
func (v Value) Int() (int64, bool) {
	switch n := v.data.(type) {
	case int64:
		return n, true
	case uint64:
		return int64(n), n <= math.MaxInt64
	}
	return 0, false
}

// Float gives a float or double; false means it is none.
func (v Value) Float() (float64, bool) {
	f, ok := v.data.(float64)
	return f, ok
}

// Text gives a string; false means it is none.
func (v Value) Text() (string, bool) {
	s, ok := v.data.(string)
	return s, ok
}

// Binary gives binary data, the Value's own; false means it is none.
func (v Value) Binary() ([]byte, bool) {
	b, ok := v.data.([]byte)
	return b, ok
}

// String writes the value of any type for a human being; "" for none.
func (v Value) String() string {
	switch d := v.data.(type) {
	case int64:
		return strconv.FormatInt(d, 10)
	case uint64:
		return strconv.FormatUint(d, 10)
	case float64:
		bits := 64
		if v.Type == TypeFloat {
			bits = 32
		}
		return strconv.FormatFloat(d, 'g', -1, bits)
	case string:
		return d
	case []byte:
		return fmt.Sprintf("%x", d)
	default:
		return ""
	}
}
