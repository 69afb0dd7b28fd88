/* What copying alone costs: each multicast frame goes to another interface so many times, unchanged. The relay's program
 * cannot be cheaper than this. And a sink that counts them. */
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct task {
	__u32 interface;
	__u32 copies;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} datagrams SEC(".maps");

struct copying {
	struct __sk_buff *buffer;
	__u32 interface;
};

static long copy(__u32 number, struct copying *copying)
{
	bpf_clone_redirect(copying->buffer, copying->interface, 0);
	return 0;
}

SEC("tc")
int floor_copies(struct __sk_buff *buffer)
{
	__u32 zero = 0;
	struct task *task = bpf_map_lookup_elem(&tasks, &zero);
	struct copying copying = { .buffer = buffer };

	if (!task || buffer->pkt_type != PACKET_MULTICAST)
		return TC_ACT_OK;
	copying.interface = task->interface;
	bpf_loop(task->copies, copy, &copying, 0);
	return TC_ACT_SHOT;
}

SEC("tc")
int floor_sink(struct __sk_buff *buffer)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&datagrams, &zero);

	if (!count || buffer->pkt_type != PACKET_MULTICAST)
		return TC_ACT_OK;
	*count += 1;
	return TC_ACT_SHOT;
}

const char licence[] SEC("license") = "GPL";
