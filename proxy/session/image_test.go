package session

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func soundImage() *Image {
	return &Image{
		User: "u\xe4", Database: "d", PoolUser: "u", PoolDatabase: "d", Protocol: 3 << 16, PID: 1, Secret: []byte{1, 2, 3, 4},
		Startup:  []imageSetting{{"timezone", "UTC"}},
		Settings: []imageSetting{{"my.own", "\xe4"}},
		Names:    []imageName{{imageStatement{"select $1\x00\x00\x01\x00\x00\x00\x17", "?1"}, "\xff"}},
		Unnamed:  &imageStatement{"\x00\x00\x00", ""},
		Kept:     []byte("Q"), Unsent: []byte{0},
	}
}

func TestImage_encodedAndDecoded_isTheSame(t *testing.T) {
	encoded, err := soundImage().Encode()
	require.NoError(t, err)
	decoded, err := DecodeImage(encoded)
	require.NoError(t, err)
	require.Equal(t, soundImage(), decoded, "in whatever encoding the client's texts are")
}

func TestImage_notInOrder_isRefused(t *testing.T) {
	for name, spoil := range map[string]func(i *Image){
		"no user":                 func(i *Image) { i.User = "" },
		"no pool":                 func(i *Image) { i.PoolDatabase = "" },
		"another protocol":        func(i *Image) { i.Protocol = 2 << 16 },
		"a setting without name":  func(i *Image) { i.Startup[0].Name = "" },
		"a setting with a zero":   func(i *Image) { i.Settings[0].Value = "a\x00b" },
		"a name twice":            func(i *Image) { i.Names = append(i.Names, i.Names[0]) },
		"no name":                 func(i *Image) { i.Names[0].Name = "" },
		"no end of the text":      func(i *Image) { i.Names[0].Definition = "select 1" },
		"types missing":           func(i *Image) { i.Names[0].Definition = "select 1\x00\x00\x01" },
		"an empty unnamed":        func(i *Image) { i.Unnamed.Definition = "" },
		"more than the types are": func(i *Image) { i.Unnamed.Definition += "\x00" },
	} {
		i := soundImage()
		spoil(i)
		encoded, err := i.Encode()
		require.NoError(t, err)
		_, err = DecodeImage(encoded)
		require.Error(t, err, name)
	}
	for _, encoded := range []string{"", "null", "{}", "[]", `{"user":"%"}`, `{"new":1}`} {
		_, err := DecodeImage([]byte(encoded))
		require.Error(t, err, encoded)
	}
	encoded, err := soundImage().Encode()
	require.NoError(t, err)
	_, err = DecodeImage(append(encoded, "{}"...))
	require.Error(t, err)
	_, err = DecodeImage([]byte(strings.Replace(string(encoded), `"user"`, `"later_field"`, 1)))
	require.Error(t, err)
}
