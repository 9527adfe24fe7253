// SPDX-License-Identifier: MIT
// A C++ extension that keeps what it makes: its functions have long names.
#include <cstddef>
#include <vector>

#define VICTIM_API __attribute__((visibility("default")))

namespace shop {
struct Item {
	char bytes[700];
};

template <class T> class Keeper {
	std::vector<T *> kept;

public:
	__attribute__((noinline)) void keep(int number)
	{
		T *item = new T; // line: new

		item->bytes[0] = static_cast<char>(number);
		kept.push_back(item);
	}
};

static Keeper<Item> keeper;
} // namespace shop

extern "C" VICTIM_API void frames_cpp(int count)
{
	for (int i = 0; i < count; i++)
		shop::keeper.keep(i);
}
