/* SPDX-License-Identifier: MIT */
/*
 * What libarrow looks like from outside: classes that derive from arrow::MemoryPool and have no exported names, one of
 * which has an allocator of its own, and arrow::ProxyMemoryPool, which is exported and wraps another.
 */
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <sys/mman.h>

#define VICTIM_API __attribute__((visibility("default")))

namespace arrow {

class VICTIM_API Status {
public:
	Status() : state(nullptr) {}
	explicit Status(const char *text) : state(text) {}
	Status(Status &&other) : state(other.state) { other.state = nullptr; }
	~Status() { state = nullptr; }
	bool ok() const { return !state; }

private:
	const char *volatile state;
};

class VICTIM_API MemoryPool {
public:
	virtual ~MemoryPool();
	virtual Status Allocate(int64_t size, int64_t alignment, uint8_t **out) = 0;
	virtual Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t **block) = 0;
	virtual void Free(uint8_t *block, int64_t size, int64_t alignment) = 0;
	virtual int64_t bytes_allocated() const = 0;
};

MemoryPool::~MemoryPool() {}

class VICTIM_API ProxyMemoryPool : public MemoryPool {
public:
	explicit ProxyMemoryPool(MemoryPool *inner) : inner(inner) {}
	Status Allocate(int64_t size, int64_t alignment, uint8_t **out) override;
	Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t **block) override;
	void Free(uint8_t *block, int64_t size, int64_t alignment) override;
	int64_t bytes_allocated() const override;

private:
	MemoryPool *inner;
};

Status ProxyMemoryPool::Allocate(int64_t size, int64_t alignment, uint8_t **out)
{
	return inner->Allocate(size, alignment, out);
}
Status ProxyMemoryPool::Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t **block)
{
	return inner->Reallocate(old_size, new_size, alignment, block);
}
void ProxyMemoryPool::Free(uint8_t *block, int64_t size, int64_t alignment)
{
	inner->Free(block, size, alignment);
}
int64_t ProxyMemoryPool::bytes_allocated() const
{
	return inner->bytes_allocated();
}

namespace {

uint8_t nothing[64];

/* Each block has a mapping of a larger piece that it is cut from: its bytes are nobody's malloc. */
template <typename Kind> class Pool : public MemoryPool {
public:
	Status Allocate(int64_t size, int64_t alignment, uint8_t **out) override
	{
		if (size > (int64_t)1 << 40)
			return Status("no memory");
		if (!size)
			*out = nothing;
		else
			*out = cut(size, alignment);
		allocated += size;
		return Status();
	}
	Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t **block) override
	{
		uint8_t *before = *block;
		Status status = Allocate(new_size, alignment, block);

		if (status.ok()) {
			std::memcpy(*block, before, (size_t)(old_size < new_size ? old_size : new_size));
			allocated -= old_size;
		} else {
			*block = before;
		}
		return status;
	}
	void Free(uint8_t *block, int64_t size, int64_t) override
	{
		if (size)
			std::memset(block, 0xdd, (size_t)size);
		allocated -= size;
	}
	int64_t bytes_allocated() const override { return allocated; }

private:
	uint8_t *cut(int64_t size, int64_t alignment)
	{
		if (left < size + alignment) {
			left = (size + alignment + ((int64_t)1 << 22)) & ~(((int64_t)1 << 22) - 1);
			next = (uint8_t *)mmap(NULL, (size_t)left, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		}
		uint8_t *block = (uint8_t *)(((uintptr_t)next + (uintptr_t)alignment - 1) & ~((uintptr_t)alignment - 1));
		left -= block + size - next;
		next = block + size;
		return block;
	}
	uint8_t *next = nullptr;
	int64_t left = 0, allocated = 0;
};

struct OfItsOwn {};
struct Other {};

class OwnPool : public Pool<OfItsOwn> {
public:
	int64_t bytes_allocated() const override { return Pool<OfItsOwn>::bytes_allocated(); }
};

OwnPool own;
Pool<Other> other;
ProxyMemoryPool proxy(&own);
MemoryPool *volatile pools[] = {&own, &other, &proxy};

} // namespace
} // namespace arrow

extern "C" VICTIM_API void *arrow_take(int pool, int64_t size)
{
	uint8_t *block = nullptr;
	arrow::Status status = arrow::pools[pool]->Allocate(size, 64, &block);

	return status.ok() ? block : nullptr;
}

extern "C" VICTIM_API void *arrow_resize(int pool, void *block, int64_t old_size, int64_t new_size)
{
	uint8_t *result = (uint8_t *)block;

	return arrow::pools[pool]->Reallocate(old_size, new_size, 64, &result).ok() ? result : nullptr;
}

extern "C" VICTIM_API void arrow_drop(int pool, void *block, int64_t size)
{
	arrow::pools[pool]->Free((uint8_t *)block, size, 64);
}

extern "C" VICTIM_API int64_t arrow_allocated(int pool)
{
	return arrow::pools[pool]->bytes_allocated();
}
