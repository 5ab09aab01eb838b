package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

// proxyMain is the yardstick: Go's reverse proxy before the engine at the address of the argument, nothing else. It
// prints its own address and serves until it is killed. Now and then it truncates a stream, when the engine answers
// before the proxy has noticed that it has sent the whole request; those answers are counted and not used.
func proxyMain(args []string) {
	to := &url.URL{Scheme: "http", Host: args[0]}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy: "+err.Error())
		os.Exit(1)
	}
	fmt.Println(l.Addr().String())
	err = http.Serve(l, &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		FlushInterval: -1, // each piece of a stream at once
		ErrorLog:      log.New(io.Discard, "", 0),
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
	})
	fmt.Fprintln(os.Stderr, "proxy: "+err.Error())
	os.Exit(1)
}
