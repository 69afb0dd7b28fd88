/* Frames that try out an interface before channels are sent to it. Never attached: the kernel is asked to run it on
 * frames the agent makes (BPF_F_TEST_XDP_LIVE_FRAMES). The frame says behind its Ethernet header where it is to go. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int probe_interface(struct xdp_md *context)
{
	void *data = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	__u32 *target = data + ETH_HLEN;

	if ((void *)(target + 1) > end)
		return XDP_ABORTED;
	return bpf_redirect(*target, 0);
}

char _license[] SEC("license") = "GPL";
