package cmap

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

func TestDecodeEveryType(t *testing.T) {
	n := binary.NativeEndian
	for _, c := range []struct {
		typ  Type
		raw  []byte
		want string
	}{
		{TypeInt8, []byte{0xff}, "-1"},
		{TypeUint8, []byte{0xff}, "255"},
		{TypeInt16, n.AppendUint16(nil, 0x8000), "-32768"},
		{TypeUint16, n.AppendUint16(nil, 0x8000), "32768"},
		{TypeInt32, n.AppendUint32(nil, math.MaxUint32), "-1"},
		{TypeUint32, n.AppendUint32(nil, math.MaxUint32), "4294967295"},
		{TypeInt64, n.AppendUint64(nil, math.MaxUint64), "-1"},
		{TypeUint64, n.AppendUint64(nil, math.MaxUint64), "18446744073709551615"},
		{TypeFloat, n.AppendUint32(nil, math.Float32bits(0.1)), "0.1"},
		{TypeDouble, n.AppendUint64(nil, math.Float64bits(-2.5)), "-2.5"},
		{TypeString, []byte("text"), "text"},
		{TypeString, []byte("text\x00rest"), "text"},
		{TypeString, nil, ""},
		{TypeBinary, []byte{0, 1, 0xfe}, "0001fe"},
	} {
		v, ok := decode(c.typ, c.raw)
		if !ok || v.Type != c.typ || v.String() != c.want || v.IsZero() {
			t.Errorf("type %d, %x: %+v (%q), %v; want %q", c.typ, c.raw, v, v, ok, c.want)
		}
	}
	for typ, raw := range map[Type][]byte{0: nil, 13: {1}, TypeUint32: {1, 2, 3}, TypeInt8: nil, TypeDouble: make([]byte, 9)} {
		if v, ok := decode(typ, raw); ok || !v.IsZero() {
			t.Errorf("type %d, %x: accepted as %v", typ, raw, v)
		}
	}
}

func TestAccessorsRefuseOtherTypes(t *testing.T) {
	big, _ := decode(TypeUint64, bytes.Repeat([]byte{0xff}, 8))
	if n, ok := big.Int(); ok {
		t.Errorf("2^64-1 fits an int64: %d", n)
	}
	text, _ := decode(TypeString, []byte("1"))
	_, isUint := text.Uint()
	_, isInt := text.Int()
	_, isFloat := text.Float()
	_, isBinary := text.Binary()
	if s, isText := text.Text(); isUint || isInt || isFloat || isBinary || !isText || s != "1" {
		t.Errorf("%+v taken for another type", text)
	}
	if v := (Value{}); v.String() != "" || !v.IsZero() {
		t.Error("the zero Value is something")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint32(TypeUint32), []byte{1, 2, 3, 4})
	f.Add(uint32(TypeString), []byte("a\x00b"))
	f.Add(uint32(TypeBinary), []byte{})
	f.Add(uint32(99), []byte{1})
	f.Fuzz(func(t *testing.T, typ uint32, raw []byte) {
		keep := bytes.Clone(raw)
		v, ok := decode(Type(typ), raw)
		if ok == v.IsZero() {
			t.Fatalf("decoded: %v, value: %+v", ok, v)
		}
		text := v.String()
		for i := range raw {
			raw[i]++ // the value is a copy
		}
		if v.String() != text {
			t.Fatalf("%x: value changed with its source", keep)
		}
	})
}
