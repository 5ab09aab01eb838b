package engine

import "testing"

func TestReadLoad(t *testing.T) {
	for _, c := range []struct {
		name, dialect, page string
		want                Load
	}{
		{"vllm", "vllm", "# HELP vllm:num_requests_running x\n# TYPE vllm:num_requests_running gauge\n" +
			"vllm:num_requests_running{engine=\"0\",model_name=\"a}b\\\"c\"} 3.0\nvllm:num_requests_running{engine=\"1\"} 4.0\n" +
			"vllm:num_requests_waiting{engine=\"0\"} 0.0\nvllm:num_requests_waiting_by_reason{reason=\"capacity\"} 9\n" +
			"vllm:kv_cache_usage_perc{engine=\"0\"} 0.4375\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.9999999\n", Load{7, 0, 999_999}},
		{"an older vllm", "vllm", "vllm:num_requests_running 1e+03\nvllm:gpu_cache_usage_perc 5e-01 1700000000000\n", Load{1000, Unknown, 500_000}},
		{"llama.cpp", "llamacpp", "llamacpp:requests_processing 2\nllamacpp:requests_deferred 5\n", Load{2, 5, Unknown}},
		{"nothing", "vllm", "", Load{Unknown, Unknown, Unknown}},
		{"nonsense", "vllm", "vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\nvllm:kv_cache_usage_perc 1.5\n", Load{Unknown, Unknown, Unknown}},
		{"too large", "vllm", "vllm:num_requests_running 1e999999999\nvllm:num_requests_waiting +Inf\nvllm:kv_cache_usage_perc 1/2\n", Load{Unknown, Unknown, Unknown}},
		{"cut off", "vllm", "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_waiting{engi", Load{3, Unknown, Unknown}},
	} {
		d, _ := ByName(c.dialect)
		if got := d.ReadLoad([]byte(c.page)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func FuzzReadLoad(f *testing.F) {
	f.Add([]byte("vllm:num_requests_running{a=\"}\"} 3\nvllm:kv_cache_usage_perc 0.5\n"))
	f.Fuzz(func(t *testing.T, page []byte) {
		for _, d := range Dialects {
			if l := d.ReadLoad(page); l.Running < Unknown || l.Waiting < Unknown || l.Memory < Unknown || l.Memory > million {
				t.Fatalf("%s: %+v", d.Name, l)
			}
		}
	})
}
