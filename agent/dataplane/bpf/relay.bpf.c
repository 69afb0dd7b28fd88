/* The relay: native multicast into tunnels. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "relay_capture.h"
#include "relay_tc.h"

char terms[] SEC("license") = "Dual MIT/GPL"; /* what the kernel asks for before it lends some of its helpers */
